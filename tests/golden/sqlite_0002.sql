BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0002');
CREATE TABLE alert (
	id TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	subject TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	title TEXT NOT NULL, 
	text TEXT NOT NULL, 
	first_seen INTEGER NOT NULL, 
	last_seen INTEGER NOT NULL, 
	count INTEGER NOT NULL, 
	sources TEXT NOT NULL, 
	resolved_at INTEGER, 
	told TEXT, 
	told_at INTEGER, 
	told_count INTEGER NOT NULL, 
	messages INTEGER NOT NULL, 
	CONSTRAINT pk_alert PRIMARY KEY (id), 
	CONSTRAINT ck_alert_told_known CHECK (told IN ('raised', 'resolved')), 
	CONSTRAINT ck_alert_told_when CHECK ((told IS NULL) = (told_at IS NULL) AND (told IS NULL) = (messages = 0) AND messages >= 0), 
	CONSTRAINT ck_alert_count_least CHECK (count >= 1), 
	CONSTRAINT ck_alert_seen_in_order CHECK (last_seen >= first_seen), 
	CONSTRAINT ck_alert_told_count_range CHECK (told_count BETWEEN 0 AND count)
)
 WITHOUT ROWID,
 STRICT

;
INSERT INTO "alert" VALUES('al_93c2c22019d35032','breaker_open','target sim/old-1','breaker_open:t_1','sim/old-1 is left alone','It timed out five times. sim/spare carries the load now.',1795167015123456,1795167015123456,1,'{"w1":"2026-11-20T09:30:15.123456+00:00"}',NULL,'raised',1795167015123456,1,1);
INSERT INTO "alert" VALUES('al_c970dd42d04065f5','awaiting_approval','route chat','awaiting_approval:p_0000000000000006','a swap on route chat waits for approval (p_0000000000000006)','ann proposed it. PASSED: The candidate is better: +45.0 points (95 % interval +21.6 to +65.8, not adjusted for early stopping) after 20 of 60 items. It expires at 2026-01-08 00:00 UTC.',1767225601000000,1767225601000000,1,'{"control":"2026-01-01T00:00:01+00:00"}',NULL,NULL,NULL,0,0);
CREATE TABLE api_key (
	project TEXT DEFAULT 'default' NOT NULL, 
	id TEXT NOT NULL, 
	name TEXT NOT NULL, 
	hash TEXT NOT NULL, 
	hint TEXT NOT NULL, 
	role INTEGER, 
	routes TEXT NOT NULL, 
	created_at INTEGER NOT NULL, 
	revoked_at INTEGER, 
	limits TEXT, 
	principal TEXT, 
	created_by TEXT, 
	created_with TEXT, 
	signature TEXT, 
	CONSTRAINT pk_api_key PRIMARY KEY (id), 
	CONSTRAINT ck_api_key_role_known CHECK (role BETWEEN 1 AND 4), 
	CONSTRAINT fk_api_key_principal FOREIGN KEY(principal) REFERENCES principal (id), 
	CONSTRAINT uq_api_key_hash UNIQUE (hash)
)
 WITHOUT ROWID,
 STRICT

;
INSERT INTO "api_key" VALUES('default','key_0000000000000003','ops','39003f56bb1fa493e98963eeb38a1ed718dab6c731d20e3f3c973da8a564add2','xxxx',1,'[]',1767225600000000,NULL,NULL,'pr_0000000000000004','swapgate',NULL,'2895c1461cf7e969.Cxmf9SIXAFQygbWKA6wp5bDAm86UyJ2oq78TeiE6_OTo7Lqs24YDlWE4ZBYpO14Y6cuEAo7T44mE0idDKyJFAg');
CREATE TABLE approval (
	id TEXT NOT NULL, 
	proposal TEXT NOT NULL, 
	verdict TEXT, 
	kind TEXT NOT NULL, 
	principal TEXT NOT NULL, 
	name TEXT NOT NULL, 
	"key" TEXT, 
	reason TEXT NOT NULL, 
	widened TEXT DEFAULT '{}' NOT NULL, 
	at INTEGER NOT NULL, 
	signature TEXT, 
	CONSTRAINT pk_approval PRIMARY KEY (id), 
	CONSTRAINT ck_approval_kind_known CHECK (kind IN ('canary', 'promotion')), 
	CONSTRAINT ck_approval_name_not_blank CHECK (trim(name) <> ''), 
	CONSTRAINT ck_approval_principal_not_blank CHECK (trim(principal) <> ''), 
	CONSTRAINT fk_approval_key FOREIGN KEY("key") REFERENCES api_key (id), 
	CONSTRAINT fk_approval_proposal FOREIGN KEY(proposal) REFERENCES proposal (id), 
	CONSTRAINT fk_approval_verdict FOREIGN KEY(verdict) REFERENCES verdict (id)
)
 WITHOUT ROWID,
 STRICT

;
INSERT INTO "approval" VALUES('a_0000000000000009','p_0000000000000006','v_22de2e40f44cbe41ce3691ab','canary','pr_ben','ben',NULL,'it is good','{}',1767225602000000,'2895c1461cf7e969.Vw_cvCYg0PVjnOKeyYgcwblZMMfTOtxMuH98OleZZxF89R15Bd0ftAX01ZrnJoiWfvjRbf3LsX1o3jiXnn5pCg');
CREATE TABLE audit_event (
	number INTEGER NOT NULL, 
	at INTEGER NOT NULL, 
	actor TEXT NOT NULL, 
	action TEXT NOT NULL, 
	subject TEXT NOT NULL, 
	details TEXT NOT NULL, 
	previous TEXT NOT NULL, 
	mac TEXT NOT NULL, 
	rows TEXT, 
	principal TEXT, 
	"key" TEXT, 
	CONSTRAINT pk_audit_event PRIMARY KEY (number), 
	CONSTRAINT ck_audit_event_number_least CHECK (number >= 1)
)
 WITHOUT ROWID,
 STRICT

;
INSERT INTO "audit_event" VALUES(1,1767225600000000,'swapgate','provider.put','provider sim','{"api_base":"http://127.0.0.1:9/v1","extra_body":{},"kind":"sim"}','0000000000000000000000000000000000000000000000000000000000000000','ae17542cf77259e030111af7a0ed12cf21013a078da27a4f1a78d8f1a895e90b','{"provider:sim":[null,"fdc6ff62feed2284a964aeefc151e15d"]}','swapgate',NULL);
INSERT INTO "audit_event" VALUES(2,1767225600000000,'swapgate','model.add','target t_5701b1ba30b121bc0bebea9b','{"model":"base","parameters":{},"provider":"sim","request_patch":{"parameters":{},"prompt_addendum":"","response_format":null}}','ae17542cf77259e030111af7a0ed12cf21013a078da27a4f1a78d8f1a895e90b','5449c91d312a049d6e4122299f5cc9b0ea03d00feb884831d5f4fa761f3b13ff','{"target:t_5701b1ba30b121bc0bebea9b":[null,"4675e8c263535d3da0f72b35c476d13f"]}','swapgate',NULL);
INSERT INTO "audit_event" VALUES(3,1767225600000000,'swapgate','route.create','route chat','{"reason":"created","revision":1}','5449c91d312a049d6e4122299f5cc9b0ea03d00feb884831d5f4fa761f3b13ff','fc296ca5979eda2a210e263e7a60948bff4c5cf4be8715975a770021b25c26e0','{"evidence:default/e_5686c6d4ac7299ab7b814874":[null,"c556d171ab75a12b7a5ec00d7fd84717"],"route_version:default/chat/1":[null,"14058f80dd56b25a18292c8a1a2692e4"],"suite:default/d1910473d570a6a6af52db4fcc1d2d34eefc0be8e54efeb82300928c8c1b8181":[null,"976000e1381bc541c19044e305c0cca4"]}','swapgate',NULL);
INSERT INTO "audit_event" VALUES(4,1767225600000000,'swapgate','model.add','target t_b19c8270b656f4d73fb1a91a','{"model":"good","parameters":{},"provider":"sim","request_patch":{"parameters":{},"prompt_addendum":"","response_format":null}}','fc296ca5979eda2a210e263e7a60948bff4c5cf4be8715975a770021b25c26e0','94f8bcace129f94d3400eb225f6874e2c48b5832853afcd7272ce8749097c7ca','{"target:t_b19c8270b656f4d73fb1a91a":[null,"659a5c3fd24591d5ab2a320137bd6251"]}','swapgate',NULL);
INSERT INTO "audit_event" VALUES(5,1767225600000000,'swapgate','waiver.add','waiver w_0000000000000001','{"expires_at":"2026-01-02T00:00:00+00:00","reason":"a test","route":"chat","target":"t_b19c8270b656f4d73fb1a91a"}','94f8bcace129f94d3400eb225f6874e2c48b5832853afcd7272ce8749097c7ca','de79029ff61029556a470f3407c29c57279560cfe5c247a5e7878206b161fc28','{"evidence:default/e_063e15bd7fda0a364f97ad9f":[null,"c2cf12875937c219b69da8edbc33118d"],"waiver:w_0000000000000001":[null,"a977036e60f51126ab516273ffd5236c"]}','swapgate',NULL);
INSERT INTO "audit_event" VALUES(6,1767225600000000,'swapgate','route.fallbacks','route chat','{"after":["t_b19c8270b656f4d73fb1a91a"],"before":[],"capable":[],"proofs":{"t_b19c8270b656f4d73fb1a91a":"w_0000000000000001"},"reason":"a second one","revision":2}','de79029ff61029556a470f3407c29c57279560cfe5c247a5e7878206b161fc28','a1749fbeee09dc97d35d958fb71128cabf57874be58fa3e1452de770167a1ce6','{"route_fallback:default/chat/2/0":[null,"e4ab1209be9268dbd414f06a139f22d3"],"route_version:default/chat/2":[null,"ab3013a164b7a227983502195df486c1"]}','swapgate',NULL);
INSERT INTO "audit_event" VALUES(7,1767225600000000,'swapgate','key.create','key key_0000000000000003','{"limits":null,"name":"ops","principal":"pr_0000000000000004","role":"viewer","routes":[]}','a1749fbeee09dc97d35d958fb71128cabf57874be58fa3e1452de770167a1ce6','f129b34c1041e325b4e4b2cc93f4b47cec93f4f885cb0b2263477468433f973a','{"api_key:key_0000000000000003":[null,"44aee6359311a7731257b7d1d8daa566"]}','swapgate',NULL);
INSERT INTO "audit_event" VALUES(8,1767225600000000,'swapgate','switch.throw','switch sw_0000000000000005','{"expires_at":"2026-01-01T01:00:00+00:00","force":"provider:sim","reason":"an outage","route":"all","source":"cli"}','f129b34c1041e325b4e4b2cc93f4b47cec93f4f885cb0b2263477468433f973a','076f4448038ecd0d878960a7e8c26c44b0a7a0cbd008e917cca697176682c532','{"switch:sw_0000000000000005":[null,"8890ef7f8dc4a246fd703436cf78cc5a"]}','swapgate',NULL);
INSERT INTO "audit_event" VALUES(9,1767225600000000,'ann','model.add','target t_3f57b7cceb17a6309e1049c0','{"model":"better","parameters":{},"provider":"sim","request_patch":{"parameters":{},"prompt_addendum":"","response_format":null}}','076f4448038ecd0d878960a7e8c26c44b0a7a0cbd008e917cca697176682c532','da8fa8c947dff0dca57989f6bff6245f80186dae9c10ca33dd73fb50e2da0cdd','{"target:t_3f57b7cceb17a6309e1049c0":[null,"5a7f09b65ff6ac0c5b104fbc2565794c"]}','pr_ann',NULL);
INSERT INTO "audit_event" VALUES(10,1767225600000000,'ann','proposal.create','proposal p_0000000000000006','{"candidate":"t_3f57b7cceb17a6309e1049c0","incumbent":"t_5701b1ba30b121bc0bebea9b","policy":"e46382d6f1f2e01e262104fb7a92d9c450bdbf50ec512d55301d8abe07a1ace4","reason":"a test","route":"chat","suites":[{"alpha":0.05,"claim":"superior","epochs":1,"look":1,"margin":0.05,"n_max":60,"order_seed":3515942003,"role":"primary","served_pin":"model","spend":"first_full","suite":"colours","suite_digest":"d1910473d570a6a6af52db4fcc1d2d34eefc0be8e54efeb82300928c8c1b8181"}],"widened":{}}','da8fa8c947dff0dca57989f6bff6245f80186dae9c10ca33dd73fb50e2da0cdd','c9e6ec27fb2fe5aa73021a72b51f30f04fcceec3357f172dbe14ea8d9b65b165','{"proposal:p_0000000000000006":[null,"17bf133b293bf40c6555103093ae3e84"]}','pr_ann',NULL);
INSERT INTO "audit_event" VALUES(11,1767225600000000,'swapgate','proposal.start','proposal p_0000000000000006','{"route":"chat","runs":["run_0000000000000007","run_0000000000000008"]}','c9e6ec27fb2fe5aa73021a72b51f30f04fcceec3357f172dbe14ea8d9b65b165','5aaf7894d06d36c8a460476c97c7f6540b8fca5b35c08b44366335452557b07f','{"eval_run:run_0000000000000007":[null,"085a8eb40cc53486a5fa9453660003f4"],"eval_run:run_0000000000000008":[null,"386a32a0f751f9969f4b75a7efad16f2"],"proposal:p_0000000000000006":["17bf133b293bf40c6555103093ae3e84","3a04336a44f2c4b4a82b75dd75d2f432"]}','swapgate',NULL);
INSERT INTO "audit_event" VALUES(12,1767225600000000,'swapgate','rows.written','eval_run run_0000000000000007','{}','5aaf7894d06d36c8a460476c97c7f6540b8fca5b35c08b44366335452557b07f','547a5d1a828f29d48153098f2bfc1da1730b8c757263601376570894702094da','{"eval_run:run_0000000000000007":["085a8eb40cc53486a5fa9453660003f4","d4b0ab16713f0e206a5d9be140d5a1b5"]}','swapgate',NULL);
INSERT INTO "audit_event" VALUES(13,1767225600000000,'swapgate','rows.written','eval_run run_0000000000000008','{}','547a5d1a828f29d48153098f2bfc1da1730b8c757263601376570894702094da','5a942abaa589f159ad405e606b23041b3ba5d928bdc89e67d0c5c06171b7ec2c','{"eval_run:run_0000000000000008":["386a32a0f751f9969f4b75a7efad16f2","2c34f09eb90be553a5a17546402daf54"]}','swapgate',NULL);
INSERT INTO "audit_event" VALUES(14,1767225601000000,'swapgate','verdict','proposal p_0000000000000006','{"outcome":"passed","route":"chat","verdict":"v_22de2e40f44cbe41ce3691ab"}','5a942abaa589f159ad405e606b23041b3ba5d928bdc89e67d0c5c06171b7ec2c','e6e2b721e4194debedbbeee0d761b95552775708a54ed0e2f2a6ffcf3f189c2b','{"verdict:v_22de2e40f44cbe41ce3691ab":[null,"423f3012671b7df9bfdce01dce1e70a4"]}','swapgate',NULL);
INSERT INTO "audit_event" VALUES(15,1767225601000000,'swapgate','rows.written','proposal p_0000000000000006','{}','e6e2b721e4194debedbbeee0d761b95552775708a54ed0e2f2a6ffcf3f189c2b','b84c58ea2b7e9a199d875e89eee6ebb3be8c5b0650cbcb1f08adaf4b98d6c010','{"proposal:p_0000000000000006":["3a04336a44f2c4b4a82b75dd75d2f432","e63811ce712c4ad633ffe0ae742b2f00"]}','swapgate',NULL);
INSERT INTO "audit_event" VALUES(16,1767225602000000,'ben','proposal.approve','proposal p_0000000000000006','{"reason":"it is good","verdict":"v_22de2e40f44cbe41ce3691ab","widened":{}}','b84c58ea2b7e9a199d875e89eee6ebb3be8c5b0650cbcb1f08adaf4b98d6c010','7100dd0585aa2c15ea5482e20a7380a586a8a2c8372eaedd86d6e63db6884c5f','{"approval:a_0000000000000009":[null,"f126c24e8a0e827806ec1721ef15dbc2"],"proposal:p_0000000000000006":["e63811ce712c4ad633ffe0ae742b2f00","986619b3f91cd719a05316e9b4d93e16"]}','pr_ben',NULL);
INSERT INTO "audit_event" VALUES(17,1767225602000000,'swapgate','rows.written','credential sim/first','{}','7100dd0585aa2c15ea5482e20a7380a586a8a2c8372eaedd86d6e63db6884c5f','0fc5a2187de079ca4c006d4875c193f58929630b4b4d11e3cd2f378bc8719001','{"credential:sim/first":[null,"a806501daf7731378f3804dfc9fc4292"],"shadow:sh_1":[null,"fd7f5871a45e9892aca31439ccb64262"]}','swapgate',NULL);
INSERT INTO "audit_event" VALUES(18,1767225602000000,'swapgate','rows.written','rollout r_000000000000000a','{}','0fc5a2187de079ca4c006d4875c193f58929630b4b4d11e3cd2f378bc8719001','d6d3bbfcc6637e00f381473b2a794136a15d006fe957fb0469055b06b0474af5','{"evidence:default/e_7ca0bfca944ab510bc0ad091":[null,"7ab328460b813e1733b589be1fdc0d5c"],"proposal:p_0000000000000006":["986619b3f91cd719a05316e9b4d93e16","a5ee96c5fbd625156fdceaef7a2c00f1"],"rollout:r_000000000000000a":[null,"8c731befc73bf811f88b4489918a64a3"],"route_fallback:default/chat/3/0":[null,"991e39cb2d096db17f2917bfbf6fe29c"],"route_version:default/chat/3":[null,"81fbd08ea288a7d1454f97298b69b590"]}','swapgate',NULL);
INSERT INTO "audit_event" VALUES(19,1767225602000000,'swapgate','shadow.stop','shadow sh_1','{"candidate":"sim/better","proposal":null,"reason":"the candidate has its canary now, and answers users","requests_per_day":1000,"route":"chat","share_bps":100,"usd_in_all":null,"usd_per_day":1.0}','d6d3bbfcc6637e00f381473b2a794136a15d006fe957fb0469055b06b0474af5','dac5e4c8054d416227cc883a04829d6c39f769ae74828011f34868fb9223e293','{"shadow:sh_1":["fd7f5871a45e9892aca31439ccb64262","2fcfcfd5ea80ce204651effe73938fcb"]}','swapgate',NULL);
CREATE TABLE block (
	rollout TEXT NOT NULL, 
	number INTEGER NOT NULL, 
	worker TEXT NOT NULL, 
	sequence INTEGER NOT NULL, 
	weight_bps INTEGER NOT NULL, 
	units INTEGER NOT NULL, 
	canary_units INTEGER NOT NULL, 
	failures INTEGER NOT NULL, 
	canary_failures INTEGER NOT NULL, 
	missing INTEGER NOT NULL, 
	opened_at INTEGER NOT NULL, 
	closed_at INTEGER NOT NULL, 
	period INTEGER DEFAULT '1' NOT NULL, 
	counts TEXT, 
	ranks TEXT, 
	levels TEXT, 
	CONSTRAINT pk_block PRIMARY KEY (rollout, number), 
	CONSTRAINT ck_block_failures_range CHECK (failures >= 0 AND canary_failures BETWEEN 0 AND canary_units AND failures - canary_failures BETWEEN 0 AND units - canary_units), 
	CONSTRAINT ck_block_number_least CHECK (number >= 1), 
	CONSTRAINT ck_block_period_least CHECK (period >= 1), 
	CONSTRAINT ck_block_units_range CHECK (units >= 0 AND canary_units BETWEEN 0 AND units AND missing BETWEEN 0 AND units), 
	CONSTRAINT ck_block_weight_bps_range CHECK (weight_bps BETWEEN 0 AND 10000), 
	CONSTRAINT uq_block_sent_once UNIQUE (rollout, worker, sequence)
)
 WITHOUT ROWID,
 STRICT

;
INSERT INTO "block" VALUES('r_000000000000000a',1,'router-test',0,100,100,1,1,0,0,1767225603000000,1767225603000000,1,NULL,NULL,NULL);
CREATE TABLE captured (
	id TEXT NOT NULL, 
	at INTEGER NOT NULL, 
	expires_at INTEGER NOT NULL, 
	route TEXT NOT NULL, 
	request TEXT NOT NULL, 
	endpoint TEXT NOT NULL, 
	stream INTEGER NOT NULL, 
	arm TEXT NOT NULL, 
	target TEXT NOT NULL, 
	revision INTEGER NOT NULL, 
	data_class TEXT NOT NULL, 
	user_hash TEXT NOT NULL, 
	share_bps INTEGER NOT NULL, 
	rules TEXT NOT NULL, 
	redactions TEXT NOT NULL, 
	content TEXT NOT NULL, 
	seen INTEGER NOT NULL, 
	CONSTRAINT pk_captured PRIMARY KEY (id), 
	CONSTRAINT ck_captured_expires_later CHECK (expires_at > at), 
	CONSTRAINT ck_captured_rules_known CHECK (length(rules) = 64), 
	CONSTRAINT ck_captured_seen_least CHECK (seen >= 1), 
	CONSTRAINT ck_captured_share_bps_range CHECK (share_bps BETWEEN 1 AND 10000)
)
 WITHOUT ROWID,
 STRICT

;
INSERT INTO "captured" VALUES('cap_1',1795167015123456,1797759015123456,'triage','req_w1-1','chat',1,'incumbent','sim/old-1',3,'personal','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',100,'ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff','{"email":2}','{"answer":{"content":"yes","finish_reason":"stop","role":"assistant"},"messages":[{"content":"half a pair \ud83d, and \u0000","role":"user"}]}',1);
CREATE TABLE credential (
	provider TEXT NOT NULL, 
	name TEXT NOT NULL, 
	ciphertext TEXT NOT NULL, 
	position INTEGER NOT NULL, 
	created_at INTEGER NOT NULL, 
	updated_at INTEGER NOT NULL, 
	created_by TEXT NOT NULL, 
	expires_at INTEGER, 
	signature TEXT, 
	CONSTRAINT pk_credential PRIMARY KEY (provider, name), 
	CONSTRAINT ck_credential_name_not_blank CHECK (trim(name) <> ''), 
	CONSTRAINT fk_credential_provider FOREIGN KEY(provider) REFERENCES provider (name)
)
 WITHOUT ROWID,
 STRICT

;
INSERT INTO "credential" VALUES('sim','first','ciphertext',0,1767225602000000,1767225600000000,'ada',NULL,'2895c1461cf7e969.6ZmJitZ_OTSD2TG5PaOUbsc0mdPcqF89yiUx-RfRrk7uWhSBpXcPCJxRIHsybu0Bn8ZQtBiBsTbCU8iDFOcfCQ');
CREATE TABLE delivery (
	alert TEXT NOT NULL, 
	number INTEGER NOT NULL, 
	sink TEXT NOT NULL, 
	message TEXT NOT NULL, 
	title TEXT NOT NULL, 
	text TEXT NOT NULL, 
	created_at INTEGER NOT NULL, 
	next_attempt_at INTEGER, 
	attempts INTEGER NOT NULL, 
	delivered_at INTEGER, 
	gave_up_at INTEGER, 
	last_error TEXT NOT NULL, 
	CONSTRAINT pk_delivery PRIMARY KEY (alert, number, sink), 
	CONSTRAINT ck_delivery_message_known CHECK (message IN ('raised', 'resolved')), 
	CONSTRAINT ck_delivery_one_state CHECK ((next_attempt_at IS NOT NULL AND delivered_at IS NULL AND gave_up_at IS NULL) OR (next_attempt_at IS NULL AND delivered_at IS NOT NULL AND gave_up_at IS NULL) OR (next_attempt_at IS NULL AND delivered_at IS NULL AND gave_up_at IS NOT NULL)), 
	CONSTRAINT ck_delivery_attempts_least CHECK (attempts >= 0), 
	CONSTRAINT ck_delivery_delivered_by_attempt CHECK (delivered_at IS NULL OR attempts > 0), 
	CONSTRAINT ck_delivery_number_least CHECK (number >= 1), 
	CONSTRAINT fk_delivery_alert FOREIGN KEY(alert) REFERENCES alert (id) ON DELETE CASCADE
)
 WITHOUT ROWID,
 STRICT

;
INSERT INTO "delivery" VALUES('al_93c2c22019d35032',1,'chat','raised','sim/old-1 is left alone','It timed out five times. sim/spare carries the load now.',1795167015123456,1795167015123456,0,NULL,NULL,'');
CREATE TABLE drift_check (
	watch TEXT NOT NULL, 
	number INTEGER NOT NULL, 
	run TEXT NOT NULL, 
	started_at INTEGER NOT NULL, 
	state TEXT NOT NULL, 
	ended_at INTEGER, 
	message TEXT NOT NULL, 
	served TEXT NOT NULL, 
	scores TEXT NOT NULL, 
	evidence TEXT, 
	CONSTRAINT pk_drift_check PRIMARY KEY (watch, number), 
	CONSTRAINT ck_drift_check_ended_when CHECK ((state = 'running') = (ended_at IS NULL)), 
	CONSTRAINT ck_drift_check_state_known CHECK (state IN ('running', 'counted', 'not_measured')), 
	CONSTRAINT ck_drift_check_number_least CHECK (number >= 0), 
	CONSTRAINT fk_drift_check_run FOREIGN KEY(run) REFERENCES eval_run (id), 
	CONSTRAINT fk_drift_check_watch FOREIGN KEY(watch) REFERENCES drift_watch (id), 
	CONSTRAINT uq_drift_check_run UNIQUE (run)
)
 WITHOUT ROWID,
 STRICT

;
INSERT INTO "drift_check" VALUES('dw_1',0,'run_0000000000000008',1795167015123456,'counted',1796376615123456,'as planned','["old-1-0502","old-1-1106"]','[["i2",1.0],["i1",null],["i3",0.125]]','{"better":0,"check":1,"ci_high":0.1,"ci_low":null,"ci_method":"t","delta":-0.25,"direction":"worse","drifted":true,"items":2,"log_e":3.25,"log_e_limit":3.0,"same":1,"window":1,"worse":1}');
CREATE TABLE drift_watch (
	id TEXT NOT NULL, 
	target TEXT NOT NULL, 
	suite TEXT NOT NULL, 
	suite_digest TEXT NOT NULL, 
	items INTEGER NOT NULL, 
	epochs INTEGER NOT NULL, 
	alpha REAL NOT NULL, 
	state TEXT NOT NULL, 
	opened_at INTEGER NOT NULL, 
	opened_by TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	closed_at INTEGER, 
	CONSTRAINT pk_drift_watch PRIMARY KEY (id), 
	CONSTRAINT ck_drift_watch_closed_when CHECK ((state = 'closed') = (closed_at IS NOT NULL)), 
	CONSTRAINT ck_drift_watch_state_known CHECK (state IN ('watching', 'drifted', 'closed')), 
	CONSTRAINT ck_drift_watch_alpha_share CHECK (alpha > 0 AND alpha < 1), 
	CONSTRAINT ck_drift_watch_epochs_least CHECK (epochs >= 1), 
	CONSTRAINT ck_drift_watch_items_least CHECK (items >= 1), 
	CONSTRAINT fk_drift_watch_target FOREIGN KEY(target) REFERENCES target (id)
)
 WITHOUT ROWID,
 STRICT

;
INSERT INTO "drift_watch" VALUES('dw_1','t_5701b1ba30b121bc0bebea9b','tickets','5aebea6aa60652eef5057bcf97fbb5d3731d1f49b2cd268d9d96c80d45f3fd1b',200,2,0.05,'watching',1795167015123456,'ada','the first',NULL);
CREATE TABLE eval_run (
	id TEXT NOT NULL, 
	suite TEXT NOT NULL, 
	suite_digest TEXT NOT NULL, 
	target TEXT NOT NULL, 
	order_seed TEXT NOT NULL, 
	epochs INTEGER NOT NULL, 
	wanted INTEGER NOT NULL, 
	state TEXT NOT NULL, 
	created_at INTEGER NOT NULL, 
	max_tokens INTEGER, 
	max_cost_usd REAL, 
	lease_owner TEXT, 
	lease_until INTEGER, 
	failures INTEGER NOT NULL, 
	message TEXT NOT NULL, 
	fingerprint TEXT NOT NULL, 
	signature TEXT, 
	CONSTRAINT pk_eval_run PRIMARY KEY (id), 
	CONSTRAINT ck_eval_run_state_known CHECK (state IN ('queued', 'running', 'done', 'stopped', 'over_budget', 'failed')), 
	CONSTRAINT ck_eval_run_lease_whole CHECK ((lease_owner IS NULL) = (lease_until IS NULL)), 
	CONSTRAINT ck_eval_run_epochs_least CHECK (epochs >= 1), 
	CONSTRAINT ck_eval_run_failures_least CHECK (failures >= 0), 
	CONSTRAINT ck_eval_run_max_cost_usd_amount CHECK (max_cost_usd >= 0 AND max_cost_usd < 1e15), 
	CONSTRAINT ck_eval_run_max_tokens_least CHECK (max_tokens >= 0), 
	CONSTRAINT ck_eval_run_wanted_least CHECK (wanted >= 0), 
	CONSTRAINT fk_eval_run_target FOREIGN KEY(target) REFERENCES target (id)
)
 WITHOUT ROWID,
 STRICT

;
INSERT INTO "eval_run" VALUES('run_0000000000000007','colours','d1910473d570a6a6af52db4fcc1d2d34eefc0be8e54efeb82300928c8c1b8181','t_5701b1ba30b121bc0bebea9b','3515942003',1,60,'done',1767225600000000,NULL,NULL,NULL,NULL,0,'','ee11383ea527d8b881ede8265754cb129fac3d55f5dc0b15f15ad7eee169fa9e','2895c1461cf7e969.H1Sr-RsSDml9da_R8ucmVOyG2SxvB9cAvsfyDpKm1GQYUhpwMDvNxytqcFXWc-d-_1u1-YYgFhgFyKkOg437Bg');
INSERT INTO "eval_run" VALUES('run_0000000000000008','colours','d1910473d570a6a6af52db4fcc1d2d34eefc0be8e54efeb82300928c8c1b8181','t_3f57b7cceb17a6309e1049c0','3515942003',1,60,'done',1767225600000000,NULL,NULL,NULL,NULL,0,'','77e2fdb553d8181bc8240c7684be0a8462203cb32aa550d35deeaabc52e1985d','2895c1461cf7e969.o2molKLL4Z3HhC8-J9A3XxiF03HRWCz7JVPuje6_PiQz5jNOyR0sArJEMo4wE974z5QEJkwzPsAuHRFUxDGWBg');
CREATE TABLE evidence (
	project TEXT DEFAULT 'default' NOT NULL, 
	id TEXT NOT NULL, 
	route TEXT NOT NULL, 
	target TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	verdict_id TEXT, 
	verdict_incumbent TEXT, 
	verdict_outcome TEXT, 
	waiver_id TEXT, 
	created_at INTEGER NOT NULL, 
	signature TEXT, 
	CONSTRAINT pk_evidence PRIMARY KEY (project, id), 
	CONSTRAINT ck_evidence_verdict_passed CHECK ((kind = 'verdict' AND verdict_id IS NOT NULL AND verdict_incumbent IS NOT NULL AND verdict_outcome IS NOT NULL AND verdict_outcome = 'passed') OR (kind <> 'verdict' AND verdict_id IS NULL AND verdict_incumbent IS NULL AND verdict_outcome IS NULL)), 
	CONSTRAINT ck_evidence_waiver_named CHECK ((kind = 'waiver') = (waiver_id IS NOT NULL)), 
	CONSTRAINT ck_evidence_kind_known CHECK (kind IN ('baseline', 'verdict', 'waiver')), 
	CONSTRAINT fk_evidence_target FOREIGN KEY(target) REFERENCES target (id), 
	CONSTRAINT fk_evidence_verdict FOREIGN KEY(verdict_id, project, route, verdict_incumbent, target, verdict_outcome) REFERENCES verdict (id, project, route, incumbent, candidate, outcome), 
	CONSTRAINT fk_evidence_waiver FOREIGN KEY(waiver_id, project, route, target) REFERENCES waiver (id, project, route, target), 
	CONSTRAINT uq_evidence_proof UNIQUE (id, project, route, target)
)
 WITHOUT ROWID,
 STRICT

;
INSERT INTO "evidence" VALUES('default','e_063e15bd7fda0a364f97ad9f','chat','t_b19c8270b656f4d73fb1a91a','waiver',NULL,NULL,NULL,'w_0000000000000001',1767225600000000,'2895c1461cf7e969.7gPniTBldfgip1-mVW8A-suX-DbSPUeNaVqPNyQ4ejBcyWnVDxBgvZoCIo25QxOUj3bx_WUZ3CLKHD08bG9uCg');
INSERT INTO "evidence" VALUES('default','e_5686c6d4ac7299ab7b814874','chat','t_5701b1ba30b121bc0bebea9b','baseline',NULL,NULL,NULL,NULL,1767225600000000,'2895c1461cf7e969.sImhnqIXxZqnoDuDDZbueMRIA2-GAjyBClczkLkmb3afMH8PDQ3LgacnJM1m4zkJR-c0EmQtNPILp6o9bbmhCw');
INSERT INTO "evidence" VALUES('default','e_7ca0bfca944ab510bc0ad091','chat','t_3f57b7cceb17a6309e1049c0','verdict','v_22de2e40f44cbe41ce3691ab','t_5701b1ba30b121bc0bebea9b','passed',NULL,1767225602000000,'2895c1461cf7e969.oPaVpN5dZoTg4Iyknku99uc68hfH2Zwt20rSr0cTwFIfZ-2qjB21250LX5Gtg3OBIfaQNjRzLlsG5yqAwj66AQ');
CREATE TABLE failover (
	worker TEXT NOT NULL, 
	number INTEGER NOT NULL, 
	at INTEGER NOT NULL, 
	request TEXT NOT NULL, 
	route TEXT NOT NULL, 
	arm TEXT NOT NULL, 
	target TEXT NOT NULL, 
	provider TEXT NOT NULL, 
	failure TEXT NOT NULL, 
	status INTEGER, 
	attempts INTEGER NOT NULL, 
	latency_ms REAL NOT NULL, 
	endpoint TEXT NOT NULL, 
	stream INTEGER NOT NULL, 
	body_bytes INTEGER NOT NULL, 
	messages INTEGER NOT NULL, 
	tools INTEGER NOT NULL, 
	user_hash TEXT NOT NULL, 
	next_target TEXT, 
	CONSTRAINT pk_failover PRIMARY KEY (worker, number), 
	CONSTRAINT ck_failover_attempts_least CHECK (attempts >= 0), 
	CONSTRAINT ck_failover_body_bytes_least CHECK (body_bytes >= 0), 
	CONSTRAINT ck_failover_latency_ms_amount CHECK (latency_ms >= 0 AND latency_ms < 1e15), 
	CONSTRAINT ck_failover_messages_least CHECK (messages >= 0), 
	CONSTRAINT ck_failover_tools_least CHECK (tools >= 0)
)
 WITHOUT ROWID,
 STRICT

;
INSERT INTO "failover" VALUES('w1',1,1795167015123456,'req_w1-1','triage','incumbent','sim/old-1','sim','timeout',NULL,2,1500.5,'chat',1,812,3,2,'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','sim/spare');
CREATE TABLE key_spend (
	project TEXT DEFAULT 'default' NOT NULL, 
	"key" TEXT NOT NULL, 
	day TEXT NOT NULL, 
	worker TEXT NOT NULL, 
	requests INTEGER NOT NULL, 
	tokens INTEGER NOT NULL, 
	cost_usd REAL NOT NULL, 
	unpriced INTEGER NOT NULL, 
	CONSTRAINT pk_key_spend PRIMARY KEY ("key", day, worker), 
	CONSTRAINT ck_key_spend_cost_usd_amount CHECK (cost_usd >= 0 AND cost_usd < 1e15), 
	CONSTRAINT ck_key_spend_requests_least CHECK (requests >= 0), 
	CONSTRAINT ck_key_spend_tokens_least CHECK (tokens >= 0), 
	CONSTRAINT ck_key_spend_unpriced_least CHECK (unpriced >= 0)
)
 WITHOUT ROWID,
 STRICT

;
INSERT INTO "key_spend" VALUES('default','key_1','2026-11-20','w-1',3,400,0.5,0);
CREATE TABLE manifest (
	id INTEGER NOT NULL, 
	epoch INTEGER NOT NULL, 
	revision INTEGER NOT NULL, 
	changes INTEGER NOT NULL, 
	digest TEXT NOT NULL, 
	signed_at INTEGER NOT NULL, 
	signature TEXT NOT NULL, 
	revoked TEXT DEFAULT '' NOT NULL, 
	log_end TEXT DEFAULT '' NOT NULL, 
	CONSTRAINT pk_manifest PRIMARY KEY (id), 
	CONSTRAINT ck_manifest_epoch_least CHECK (epoch >= 1), 
	CONSTRAINT ck_manifest_one_row CHECK (id = 1)
)
 WITHOUT ROWID,
 STRICT

;
INSERT INTO "manifest" VALUES(1,1,3,7,'242cf81a2c193ef6afc4794efc1893a6ac357df7ac1dbcd7d70843dd86847815',1767225602000000,'2895c1461cf7e969.Kjcpk81yqG9dFhT_4Se2vPs_H2hvZ41M9Cu4oUjbIOcuUJJToOwP8V36ro8wjmyjk2uajt3KBwo0keeegdnpCg','e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855','19:dac5e4c8054d416227cc883a04829d6c39f769ae74828011f34868fb9223e293');
CREATE TABLE meta (
	id INTEGER NOT NULL, 
	installation TEXT NOT NULL, 
	changes INTEGER NOT NULL, 
	epoch INTEGER DEFAULT '1' NOT NULL, 
	revision_floor INTEGER DEFAULT '0' NOT NULL, 
	CONSTRAINT pk_meta PRIMARY KEY (id), 
	CONSTRAINT ck_meta_one_row CHECK (id = 1)
)
 WITHOUT ROWID,
 STRICT

;
INSERT INTO "meta" VALUES(1,'2f43a80cac6fe870d5f5a94375cae6bd',7,1,0);
CREATE TABLE principal (
	id TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	name TEXT NOT NULL, 
	folded TEXT NOT NULL, 
	issuer TEXT, 
	subject TEXT, 
	created_at INTEGER NOT NULL, 
	signature TEXT, 
	CONSTRAINT pk_principal PRIMARY KEY (id), 
	CONSTRAINT ck_principal_kind_known CHECK (kind IN ('local', 'person', 'service')), 
	CONSTRAINT ck_principal_folded_not_blank CHECK (trim(folded) <> ''), 
	CONSTRAINT ck_principal_id_not_blank CHECK (trim(id) <> ''), 
	CONSTRAINT ck_principal_name_not_blank CHECK (trim(name) <> ''), 
	CONSTRAINT ck_principal_signed_in_whole CHECK ((issuer IS NULL) = (subject IS NULL)), 
	CONSTRAINT uq_principal_folded UNIQUE (folded), 
	CONSTRAINT uq_principal_signed_in UNIQUE (issuer, subject)
)
 WITHOUT ROWID,
 STRICT

;
INSERT INTO "principal" VALUES('local','local','local','local',NULL,NULL,0,NULL);
INSERT INTO "principal" VALUES('pr_0000000000000004','person','ops','ops',NULL,NULL,1767225600000000,'2895c1461cf7e969.9g--4H48IVqywG8R_bb76QWx7uvHRCs9oJLgTueel84OFO84gP0lLHM3Qkb8Sdpsepwj78mEI562zJyHBjxkBQ');
CREATE TABLE proposal (
	project TEXT DEFAULT 'default' NOT NULL, 
	id TEXT NOT NULL, 
	route TEXT NOT NULL, 
	incumbent TEXT NOT NULL, 
	candidate TEXT NOT NULL, 
	claim TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	proposer TEXT NOT NULL, 
	policy TEXT NOT NULL, 
	self_approval INTEGER NOT NULL, 
	plans TEXT NOT NULL, 
	phase TEXT NOT NULL, 
	created_at INTEGER NOT NULL, 
	updated_at INTEGER NOT NULL, 
	runs TEXT NOT NULL, 
	verdict TEXT, 
	rollout TEXT, 
	infra_errors INTEGER NOT NULL, 
	retry_at INTEGER, 
	approver TEXT, 
	approved_verdict TEXT, 
	closed_because TEXT NOT NULL, 
	version INTEGER NOT NULL, 
	widened TEXT DEFAULT '{}' NOT NULL, 
	proposer_principal TEXT DEFAULT '' NOT NULL, 
	proposer_key TEXT, 
	signature TEXT, 
	CONSTRAINT pk_proposal PRIMARY KEY (id), 
	CONSTRAINT ck_proposal_claim_known CHECK (claim IN ('superior', 'non_inferior', 'cheaper_and_not_worse')), 
	CONSTRAINT ck_proposal_phase_known CHECK (phase IN ('proposed', 'evaluating', 'awaiting_approval', 'shadow', 'canary', 'promoted', 'rejected', 'rolled_back', 'cancelled')), 
	CONSTRAINT ck_proposal_proposer_not_blank CHECK (trim(proposer) <> ''), 
	CONSTRAINT ck_proposal_four_eyes CHECK (approver IS NULL OR approver <> proposer OR self_approval), 
	CONSTRAINT ck_proposal_infra_errors_least CHECK (infra_errors >= 0), 
	CONSTRAINT ck_proposal_version_least CHECK (version >= 1), 
	CONSTRAINT fk_proposal_candidate FOREIGN KEY(candidate) REFERENCES target (id), 
	CONSTRAINT fk_proposal_incumbent FOREIGN KEY(incumbent) REFERENCES target (id)
)
 WITHOUT ROWID,
 STRICT

;
INSERT INTO "proposal" VALUES('default','p_0000000000000006','chat','t_5701b1ba30b121bc0bebea9b','t_3f57b7cceb17a6309e1049c0','superior','a test','ann','{"approval_ttl_s":604800.0,"canary":{"alpha":0.05,"bake_bps":100,"bake_s":0.0,"block_size":100,"certificate":20.0,"guardrails":{"cost_per_success":1.5,"feedback":1.25,"inter_token_latency":1.25,"json_validity":1.0,"judge":false,"latency":1.25,"output_tokens":1.5,"refusals":1.25,"time_to_first_token":1.25,"tool_validity":1.0,"truncation":1.25},"judge":null,"local_alpha":0.01,"missing_s":600.0,"p0":0.2,"peak":{"end_h":18,"start_h":8},"rho":1.0,"rho_ni":2.0,"session_requests":3,"session_s":60.0,"shadow":null,"steps":[{"certify":false,"deadline_s":604800.0,"min_exposures":3,"min_peak_s":0.0,"min_s":0.0,"weight_bps":100},{"certify":false,"deadline_s":604800.0,"min_exposures":5,"min_peak_s":0.0,"min_s":0.0,"weight_bps":500},{"certify":true,"deadline_s":604800.0,"min_exposures":10,"min_peak_s":0.0,"min_s":0.0,"weight_bps":2500}],"unit":"request"},"gate":{"alpha":0.05,"claim":"superior","cost_ceiling":10.0,"epochs":1,"infra_pause_s":5,"infra_retries":3,"margin":0.05,"max_cost_usd":null,"max_tokens":null,"min_saving":0.1,"n_max":null,"primaries":"weighted","run_max_age_s":86400.0,"served_pin":"model","spend":"first_full","verdict_ttl_s":1209600.0},"name":"default","promotion":"approved","self_approval":false}',0,'[{"alpha":0.05,"claim":"superior","epochs":1,"look":1,"margin":0.05,"n_max":60,"order_seed":3515942003,"role":"primary","served_pin":"model","spend":"first_full","suite":"colours","suite_digest":"d1910473d570a6a6af52db4fcc1d2d34eefc0be8e54efeb82300928c8c1b8181"}]','canary',1767225600000000,1767225602000000,'{"colours":{"candidate":"run_0000000000000008","incumbent":"run_0000000000000007"}}','v_22de2e40f44cbe41ce3691ab','r_000000000000000a',0,NULL,'ben','v_22de2e40f44cbe41ce3691ab','',5,'{}','pr_ann',NULL,'2895c1461cf7e969.NyBhUDxxwLTd8JdKQLN9mcJGv1G4VmRN2sU6f6rewt3yu5opLhNeakWcLRWnb8p0nbrk2JUgch_mDY5ompfmCw');
CREATE TABLE provider (
	name TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	api_base TEXT NOT NULL, 
	api_key_env TEXT, 
	extra_headers TEXT NOT NULL, 
	prices TEXT NOT NULL, 
	updated_at INTEGER NOT NULL, 
	more_api_key_envs TEXT NOT NULL, 
	models TEXT NOT NULL, 
	extra_body TEXT NOT NULL, 
	removed_at INTEGER, 
	sealed_headers TEXT NOT NULL, 
	answers_since INTEGER, 
	moved_by TEXT, 
	moved_because TEXT, 
	signature TEXT, 
	CONSTRAINT pk_provider PRIMARY KEY (name)
)
 WITHOUT ROWID,
 STRICT

;
INSERT INTO "provider" VALUES('sim','sim','http://127.0.0.1:9/v1',NULL,'{}','{"base":{"input_usd_per_mtok":1.0,"output_usd_per_mtok":2.0},"better":{"input_usd_per_mtok":1.0,"output_usd_per_mtok":2.0},"equal":{"input_usd_per_mtok":1.0,"output_usd_per_mtok":2.0},"good":{"input_usd_per_mtok":1.0,"output_usd_per_mtok":2.0},"worse":{"input_usd_per_mtok":1.0,"output_usd_per_mtok":2.0}}',1767225600000000,'[]','{}','{}',NULL,'{}',NULL,NULL,NULL,'2895c1461cf7e969.rcrf0jqVzXsp5jEkxgVBkYwYh7Tct8bPSNdFifcmj3ggsna_RGjI45aixIxa4fi6QQyPhPkJZE_kg8XA-em0DQ');
CREATE TABLE provider_check (
	provider TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	target TEXT, 
	ok INTEGER NOT NULL, 
	findings TEXT NOT NULL, 
	first_token_ms REAL, 
	clock_skew_s REAL, 
	at INTEGER NOT NULL, 
	CONSTRAINT pk_provider_check PRIMARY KEY (provider), 
	CONSTRAINT fk_provider_check_provider FOREIGN KEY(provider) REFERENCES provider (name)
)
 WITHOUT ROWID,
 STRICT

;
INSERT INTO "provider_check" VALUES('sim','sim','sim/good',0,'[{"found":"the key is refused","next_step":"store another one","status":"fail","subject":"key"},{"found":"it answers \ud800 \u0000","next_step":"","status":"ok","subject":"reachable"}]',12.5,NULL,1767225603000000);
CREATE TABLE rollout (
	project TEXT DEFAULT 'default' NOT NULL, 
	id TEXT NOT NULL, 
	proposal TEXT NOT NULL, 
	route TEXT NOT NULL, 
	incumbent TEXT NOT NULL, 
	candidate TEXT NOT NULL, 
	verdict TEXT NOT NULL, 
	policy TEXT NOT NULL, 
	salt TEXT NOT NULL, 
	step INTEGER NOT NULL, 
	state TEXT NOT NULL, 
	started_at INTEGER NOT NULL, 
	step_started_at INTEGER NOT NULL, 
	updated_at INTEGER NOT NULL, 
	ended_because TEXT NOT NULL, 
	version INTEGER NOT NULL, 
	bake_ends_at INTEGER, 
	signature TEXT, 
	CONSTRAINT pk_rollout PRIMARY KEY (id), 
	CONSTRAINT ck_rollout_state_known CHECK (state IN ('waiting', 'measuring', 'paused', 'promoted', 'rolled_back')), 
	CONSTRAINT ck_rollout_step_least CHECK (step >= 0), 
	CONSTRAINT ck_rollout_version_least CHECK (version >= 1), 
	CONSTRAINT fk_rollout_candidate FOREIGN KEY(candidate) REFERENCES target (id), 
	CONSTRAINT fk_rollout_incumbent FOREIGN KEY(incumbent) REFERENCES target (id), 
	CONSTRAINT fk_rollout_proposal FOREIGN KEY(proposal) REFERENCES proposal (id), 
	CONSTRAINT fk_rollout_verdict FOREIGN KEY(verdict) REFERENCES verdict (id)
)
 WITHOUT ROWID,
 STRICT

;
INSERT INTO "rollout" VALUES('default','r_000000000000000a','p_0000000000000006','chat','t_5701b1ba30b121bc0bebea9b','t_3f57b7cceb17a6309e1049c0','v_22de2e40f44cbe41ce3691ab','{"alpha":0.05,"bake_bps":100,"bake_s":0.0,"block_size":100,"certificate":20.0,"guardrails":{"cost_per_success":1.5,"feedback":1.25,"inter_token_latency":1.25,"json_validity":1.0,"judge":false,"latency":1.25,"output_tokens":1.5,"refusals":1.25,"time_to_first_token":1.25,"tool_validity":1.0,"truncation":1.25},"judge":null,"local_alpha":0.01,"missing_s":600.0,"p0":0.2,"peak":{"end_h":18,"start_h":8},"rho":1.0,"rho_ni":2.0,"session_requests":3,"session_s":60.0,"shadow":null,"steps":[{"certify":false,"deadline_s":604800.0,"min_exposures":3,"min_peak_s":0.0,"min_s":0.0,"weight_bps":100},{"certify":false,"deadline_s":604800.0,"min_exposures":5,"min_peak_s":0.0,"min_s":0.0,"weight_bps":500},{"certify":true,"deadline_s":604800.0,"min_exposures":10,"min_peak_s":0.0,"min_s":0.0,"weight_bps":2500}],"unit":"request"}','salt_000000000000000b',0,'waiting',1767225602000000,1767225602000000,1767225602000000,'',1,NULL,'2895c1461cf7e969.YXzxLPXa2BYUE-JhhSzbk6F2NjEf-C8YcYXCiDPck7SPXG3DDgkfQ5OGpsiC9tZIjuIlRDBaZ1VSqU4KeLBPAQ');
CREATE TABLE route_fallback (
	project TEXT DEFAULT 'default' NOT NULL, 
	route TEXT NOT NULL, 
	version INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	target TEXT NOT NULL, 
	evidence TEXT NOT NULL, 
	CONSTRAINT pk_route_fallback PRIMARY KEY (project, route, version, position), 
	CONSTRAINT ck_route_fallback_position_least CHECK (position >= 0), 
	CONSTRAINT fk_route_fallback_evidence FOREIGN KEY(evidence, project, route, target) REFERENCES evidence (id, project, route, target), 
	CONSTRAINT fk_route_fallback_version FOREIGN KEY(project, route, version) REFERENCES route_version (project, route, version) DEFERRABLE INITIALLY DEFERRED, 
	CONSTRAINT uq_route_fallback_target UNIQUE (project, route, version, target)
)
 WITHOUT ROWID,
 STRICT

;
INSERT INTO "route_fallback" VALUES('default','chat',2,0,'t_b19c8270b656f4d73fb1a91a','e_063e15bd7fda0a364f97ad9f');
INSERT INTO "route_fallback" VALUES('default','chat',3,0,'t_b19c8270b656f4d73fb1a91a','e_063e15bd7fda0a364f97ad9f');
CREATE TABLE route_version (
	project TEXT DEFAULT 'default' NOT NULL, 
	route TEXT NOT NULL, 
	version INTEGER NOT NULL, 
	revision INTEGER NOT NULL, 
	kind TEXT NOT NULL, 
	incumbent TEXT NOT NULL, 
	incumbent_evidence TEXT NOT NULL, 
	canary TEXT, 
	canary_evidence TEXT, 
	weight_bps INTEGER NOT NULL, 
	salt TEXT, 
	rollout TEXT, 
	unit_rule TEXT, 
	settings TEXT NOT NULL, 
	prev_version INTEGER, 
	prev_incumbent TEXT, 
	verdict_id TEXT, 
	verdict_candidate TEXT, 
	verdict_outcome TEXT, 
	at INTEGER NOT NULL, 
	actor TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	holdback TEXT, 
	holdback_plan TEXT, 
	prev_signature TEXT, 
	signature TEXT, 
	CONSTRAINT pk_route_version PRIMARY KEY (project, route, version), 
	CONSTRAINT ck_route_version_proof_passed CHECK ((kind IN ('canary', 'promotion') AND verdict_id IS NOT NULL AND verdict_candidate IS NOT NULL AND verdict_outcome IS NOT NULL AND verdict_outcome = 'passed') OR (kind NOT IN ('canary', 'promotion') AND verdict_id IS NULL AND verdict_candidate IS NULL AND verdict_outcome IS NULL)), 
	CONSTRAINT ck_route_version_version_follows CHECK ((version = 1 AND kind = 'baseline' AND prev_version IS NULL AND prev_incumbent IS NULL) OR (version > 1 AND kind <> 'baseline' AND prev_version IS NOT NULL AND prev_version = version - 1 AND prev_incumbent IS NOT NULL)), 
	CONSTRAINT ck_route_version_canary_is_the_candidate CHECK (kind <> 'canary' OR (canary IS NOT NULL AND canary = verdict_candidate)), 
	CONSTRAINT ck_route_version_promotes_the_candidate CHECK (kind <> 'promotion' OR incumbent = verdict_candidate), 
	CONSTRAINT ck_route_version_weight_of_a_canary CHECK (kind <> 'weight' OR canary IS NOT NULL), 
	CONSTRAINT ck_route_version_kind_known CHECK (kind IN ('baseline', 'canary', 'weight', 'promotion', 'abort', 'restore', 'settings')), 
	CONSTRAINT ck_route_version_canary_gone CHECK (kind NOT IN ('baseline', 'promotion', 'abort', 'restore') OR canary IS NULL), 
	CONSTRAINT ck_route_version_incumbent_stays CHECK (kind NOT IN ('canary', 'weight', 'abort', 'settings') OR incumbent = prev_incumbent), 
	CONSTRAINT ck_route_version_route_not_blank CHECK (trim(route) <> ''), 
	CONSTRAINT ck_route_version_canary_whole CHECK ((canary IS NULL AND canary_evidence IS NULL AND weight_bps = 0 AND salt IS NULL AND rollout IS NULL AND unit_rule IS NULL) OR (canary IS NOT NULL AND canary_evidence IS NOT NULL AND weight_bps BETWEEN 1 AND 10000 AND salt IS NOT NULL AND rollout IS NOT NULL AND unit_rule IS NOT NULL)), 
	CONSTRAINT ck_route_version_revision_least CHECK (revision >= 1), 
	CONSTRAINT fk_route_version_canary_evidence FOREIGN KEY(canary_evidence, project, route, canary) REFERENCES evidence (id, project, route, target), 
	CONSTRAINT fk_route_version_incumbent_evidence FOREIGN KEY(incumbent_evidence, project, route, incumbent) REFERENCES evidence (id, project, route, target), 
	CONSTRAINT fk_route_version_base FOREIGN KEY(project, route, prev_version, prev_incumbent) REFERENCES route_version (project, route, version, incumbent), 
	CONSTRAINT fk_route_version_proof FOREIGN KEY(verdict_id, project, route, prev_incumbent, verdict_candidate, verdict_outcome) REFERENCES verdict (id, project, route, incumbent, candidate, outcome), 
	CONSTRAINT uq_route_version_base UNIQUE (project, route, version, incumbent), 
	CONSTRAINT uq_route_version_revision UNIQUE (revision)
)
 WITHOUT ROWID,
 STRICT

;
INSERT INTO "route_version" VALUES('default','chat',1,1,'baseline','t_5701b1ba30b121bc0bebea9b','e_5686c6d4ac7299ab7b814874',NULL,NULL,0,NULL,NULL,NULL,'{"capable":[],"capture_bps":0,"capture_keep_days":30.0,"capture_per_day":200,"commit":"first_token","data_class":"","description":"","first_byte_timeout_s":null,"first_token_timeout_s":null,"keep_warm_bps":0,"on_bad_event":"fail","on_content_policy":"fail","overrides":{},"policy":"default","side_effects":false,"stakes":"low","suites":[{"digest":"d1910473d570a6a6af52db4fcc1d2d34eefc0be8e54efeb82300928c8c1b8181","role":"primary","suite":"colours","weight":1.0}],"task":"","total_timeout_s":120.0}',NULL,NULL,NULL,NULL,NULL,1767225600000000,'swapgate','created',NULL,NULL,NULL,'2895c1461cf7e969.eXw_MpwsePce69BJ7InJCH40GeT0UMrGy1M-j3CDvceRsz27dYO8_rI_wg-irRQ5QkswSRkD2K8KVfZ7f68lCw');
INSERT INTO "route_version" VALUES('default','chat',2,2,'settings','t_5701b1ba30b121bc0bebea9b','e_5686c6d4ac7299ab7b814874',NULL,NULL,0,NULL,NULL,NULL,'{"capable":[],"capture_bps":0,"capture_keep_days":30.0,"capture_per_day":200,"commit":"first_token","data_class":"","description":"","first_byte_timeout_s":null,"first_token_timeout_s":null,"keep_warm_bps":0,"on_bad_event":"fail","on_content_policy":"fail","overrides":{},"policy":"default","side_effects":false,"stakes":"low","suites":[{"digest":"d1910473d570a6a6af52db4fcc1d2d34eefc0be8e54efeb82300928c8c1b8181","role":"primary","suite":"colours","weight":1.0}],"task":"","total_timeout_s":120.0}',1,'t_5701b1ba30b121bc0bebea9b',NULL,NULL,NULL,1767225600000000,'swapgate','a second one',NULL,NULL,'2895c1461cf7e969.eXw_MpwsePce69BJ7InJCH40GeT0UMrGy1M-j3CDvceRsz27dYO8_rI_wg-irRQ5QkswSRkD2K8KVfZ7f68lCw','2895c1461cf7e969.Hy4x88T7t68tuYvs7CKGf92Y4gPMW1FZOLkGwVvfvkjjecoi1Jz66NVC_L6Nts3U_CLFcLeoxm-Q4i1hEU-bAw');
INSERT INTO "route_version" VALUES('default','chat',3,3,'canary','t_5701b1ba30b121bc0bebea9b','e_5686c6d4ac7299ab7b814874','t_3f57b7cceb17a6309e1049c0','e_7ca0bfca944ab510bc0ad091',100,'salt_000000000000000b','r_000000000000000a','{"began_s":1767225602.0,"block_size":100,"guardrails":{"cost_per_success":1.5,"feedback":1.25,"inter_token_latency":1.25,"json_validity":1.0,"latency":1.25,"output_tokens":1.5,"refusals":1.25,"time_to_first_token":1.25,"tool_validity":1.0,"truncation":1.25},"local_alpha":0.01,"missing_s":600.0,"period_s":86400.0,"session_requests":3,"session_s":60.0,"unit":"request"}','{"capable":[],"capture_bps":0,"capture_keep_days":30.0,"capture_per_day":200,"commit":"first_token","data_class":"","description":"","first_byte_timeout_s":null,"first_token_timeout_s":null,"keep_warm_bps":0,"on_bad_event":"fail","on_content_policy":"fail","overrides":{},"policy":"default","side_effects":false,"stakes":"low","suites":[{"digest":"d1910473d570a6a6af52db4fcc1d2d34eefc0be8e54efeb82300928c8c1b8181","role":"primary","suite":"colours","weight":1.0}],"task":"","total_timeout_s":120.0}',2,'t_5701b1ba30b121bc0bebea9b','v_22de2e40f44cbe41ce3691ab','t_3f57b7cceb17a6309e1049c0','passed',1767225602000000,'swapgate','PASSED: The candidate is better: +45.0 points (95 % interval +21.6 to +65.8, not adjusted for early stopping) after 20 of 60 items.',NULL,NULL,'2895c1461cf7e969.Hy4x88T7t68tuYvs7CKGf92Y4gPMW1FZOLkGwVvfvkjjecoi1Jz66NVC_L6Nts3U_CLFcLeoxm-Q4i1hEU-bAw','2895c1461cf7e969.GskiU9TFAvF-V1ArQNbG3qa8xJNuhTwUJ2xx7EuCLjalntefXMfGh-8dSJoFRaMUuuR1gVg_QFhAJXGfejniAg');
CREATE TABLE sample (
	run TEXT NOT NULL, 
	item TEXT NOT NULL, 
	epoch INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	answer TEXT NOT NULL, 
	strict REAL, 
	lenient REAL, 
	input_tokens INTEGER NOT NULL, 
	output_tokens INTEGER NOT NULL, 
	cost_usd REAL, 
	duration_s REAL NOT NULL, 
	error TEXT, 
	error_text TEXT NOT NULL, 
	served_model TEXT NOT NULL, 
	prompt TEXT NOT NULL, 
	rule TEXT NOT NULL, 
	cached_tokens INTEGER DEFAULT '0' NOT NULL, 
	judge_calls INTEGER DEFAULT '0' NOT NULL, 
	judge_cost_usd REAL, 
	served_build TEXT NOT NULL, 
	judge_model TEXT NOT NULL, 
	judge_build TEXT NOT NULL, 
	answer_sha256 TEXT, 
	prompt_sha256 TEXT, 
	signature TEXT, 
	CONSTRAINT pk_sample PRIMARY KEY (run, item, epoch), 
	CONSTRAINT ck_sample_error_known CHECK (error IN ('unscored', 'infra')), 
	CONSTRAINT ck_sample_cached_tokens_least CHECK (cached_tokens >= 0), 
	CONSTRAINT ck_sample_cost_usd_amount CHECK (cost_usd >= 0 AND cost_usd < 1e15), 
	CONSTRAINT ck_sample_duration_s_amount CHECK (duration_s >= 0 AND duration_s < 1e15), 
	CONSTRAINT ck_sample_input_tokens_least CHECK (input_tokens >= 0), 
	CONSTRAINT ck_sample_judge_calls_least CHECK (judge_calls >= 0), 
	CONSTRAINT ck_sample_judge_cost_usd_amount CHECK (judge_cost_usd >= 0 AND judge_cost_usd < 1e15), 
	CONSTRAINT ck_sample_lenient_share CHECK (lenient >= 0 AND lenient <= 1), 
	CONSTRAINT ck_sample_output_tokens_least CHECK (output_tokens >= 0), 
	CONSTRAINT ck_sample_position_least CHECK (position >= 0), 
	CONSTRAINT ck_sample_strict_share CHECK (strict >= 0 AND strict <= 1), 
	CONSTRAINT ck_sample_scored_or_error CHECK (strict IS NOT NULL OR error IS NOT NULL), 
	CONSTRAINT fk_sample_run FOREIGN KEY(run) REFERENCES eval_run (id)
)
 WITHOUT ROWID,
 STRICT

;
INSERT INTO "sample" VALUES('run_0000000000000007','colour-0',1,16,'c0',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 0?','',0,0,NULL,'','','','122c597083bd438b7f6d72af75d025948899647711b806bdd2cd82fa69713db3','92e96e8f914667a34b5bfd58d1fb5ba81b702e2cac2e5dd9b36dd7bb6d099d05','2895c1461cf7e969.PfrP38DbSft9u5j7WbhfX38Ci0IbJ6KyxEOkPRJTNiGbIllYswExtgKHnnzsj-M6xzCGVwp18_P3R3vqcFvIBg');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-1',1,46,'c1',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 1?','',0,0,NULL,'','','','d0f631ca1ddba8db3bcfcb9e057cdc98d0379f1bee00e75a545147a27dadd982','2b75937ffb7e560b8088ca9ecb299796c603147ddaadad97312640acef856006','2895c1461cf7e969.Hin_aXSbyPI2sKa3zeJMVcwtgOo_g3HbCP45rQLbxh5jbUur935NVZ1ds5eMJvNnsg_xvJuGLYkz8HVeQYb1DQ');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-10',1,27,'c10',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 10?','',0,0,NULL,'','','','1f311134efe1f98d5a9e049b42d7c73c3f9d825abe3319e16e21cfa65fa368b7','3938d1b170c5ba13f1e641720930fcc799e69122791c216ef7f91a3d7c7ffddf','2895c1461cf7e969.0tIW6XPLST4eVVaQQEHrJihYieoWTgWo7cMrCOTtqi1V5cwVYL3RXp8b3s18fPHPlYhm_02EZp8ze7LyViDZAw');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-11',1,52,'wrong',0.0,0.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 11?','',0,0,NULL,'','','','8810ad581e59f2bc3928b261707a71308f7e139eb04820366dc4d5c18d980225','2a7baf8c2829c8142723ed560d4dbc6573795ff97ef05d5264c525283a23d495','2895c1461cf7e969.wOFjkcjotyK-Ulnus3mR6SZOZewM5xWbNkayR7ztTkuuEqXzc5tkQdNVJTXu1I-dVDR509COJIMH5fKK6ILoDQ');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-12',1,45,'c12',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 12?','',0,0,NULL,'','','','ebbfb53547b778a125159d0de39c0be05b019fa447e6d358bf1aae65926aa553','58125bf43d43c2183fe84990bc1f9bfcc8d0e05fa5a0c80571ac5337777f2df1','2895c1461cf7e969.wrrJcXHzbcWfDQZctbBC1h3eRuF8o4P2Ryympt09ut3-tdz9JSgm2jycdeIRYy7g2cyF5OFIm5RmhOHQmdOeCA');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-13',1,15,'c13',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 13?','',0,0,NULL,'','','','74dda5282c81de22f5c8cc9e637b115f3666eaf03e57ae606ed60bcf5e5e3e1c','ae280ce1b2132bbf773ce236fde1ecd00ce6464c3b7e6270343819175df4c674','2895c1461cf7e969.Jg1D5hVeMzykQU76L0A-qfykhPWDb-6_cUidY8PlDbEOZ_Yjg4hORFtvYoYk3klzo_UrZkdyEG3CtmPDqFxYCw');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-14',1,48,'wrong',0.0,0.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 14?','',0,0,NULL,'','','','8810ad581e59f2bc3928b261707a71308f7e139eb04820366dc4d5c18d980225','dc1984bd27d4434755342d9fd06981cd48e0d4bde9a05ed77b9b495c37307100','2895c1461cf7e969.k80rKnGTLrr9knq8SGqr-P9jCO6tS4HuUMvXvkdm5rp2kYy3ekYNAvzpD0rTKl_TW-Wony62UwY-U92Jc9kPAQ');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-15',1,51,'c15',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 15?','',0,0,NULL,'','','','f37415afb05362d3c3a80c9fc4d16d9aa97c06a1d2e01689821506f1ff6ad759','8758f25e207d70d488f7649c4e5df25ab3c56ed77a3a98622f5c29aed701b716','2895c1461cf7e969.LNWl6859jqZ6GfEz3VKE0tz7G3WTsFr0_cscrKOVn6kG9aGvJqF7GCO8e18hVd_MrEG8VB43zQ1W1BzgDTTxAw');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-16',1,2,'wrong',0.0,0.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 16?','',0,0,NULL,'','','','8810ad581e59f2bc3928b261707a71308f7e139eb04820366dc4d5c18d980225','bf14567cacdde6111955d4ba5d9d92f37f18b7ef8b334e0ffac35a57b887b49b','2895c1461cf7e969.47Au2voR6RuvInEnvbX4u3HDy3o82NA71zGgO6JGT8akPSayoq2m0NeTdxOKNqzjrSht9QRcTE2M_MpzXI9GCg');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-17',1,33,'c17',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 17?','',0,0,NULL,'','','','3c44f43ed3a9baa9a1780533ae5bc50412abdaa03496d52aa9ffc577171d85cb','02663649c419f5d0997b92a67ed93b4c975ad552117ea6cce8b0b923b5c7ffe0','2895c1461cf7e969.bSih3Tp4inQIQWtkAlJ9YgAdLfYVfKRIyla1NY5XWqHQTf0YkMllg8jbrFcMEwTg8b0PkwAJ4S87OwEZLxr-Ag');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-18',1,47,'c18',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 18?','',0,0,NULL,'','','','089ae52fdf81a5ee3d7b4253ab0a6b61c585f5717f7e32d1b62fbf699ad5b6bd','c939b16c889e375a74e8dd67064635b50f1958584f597e54ff09c23e7b6a9ad6','2895c1461cf7e969.aEC9Q2vUz8Sq08ChJQ5rmnQseLUsya8lDhFohlIZqTbblKWb6GpsnOPgN1ndgixPbZM9TPxH1rP_dx7ISTavDg');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-19',1,20,'wrong',0.0,0.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 19?','',0,0,NULL,'','','','8810ad581e59f2bc3928b261707a71308f7e139eb04820366dc4d5c18d980225','7595f1770a0c8837cebd2dccea124610d444d1ad02bb44dd570f1d11a2ae12cf','2895c1461cf7e969.83dALkZrtuLiGB5GoIObp8KvOGZ2cw1tsiIxbVd7pNu9B9XI1blu6sAmNCaOSIc6CCQbC7g8GlNjGYOQDU9qAA');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-2',1,19,'wrong',0.0,0.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 2?','',0,0,NULL,'','','','8810ad581e59f2bc3928b261707a71308f7e139eb04820366dc4d5c18d980225','80d3566c8ca2521110e2aa94623e3a86bf8595097e18bf334a86565d650b072a','2895c1461cf7e969._kVoVDll4QtM2Dx6OoKvGPO_VS_oubIbiwN1YS69ShjYHd91zhVx4kXRb-ElYYjykyP1x9mEbL12JVWGxFvAAg');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-20',1,58,'c20',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 20?','',0,0,NULL,'','','','fc7fe9c12d74a4246c13f9200b5209ea8e4c96c0702c1b13a97ec9cdf467a214','cc0edbaeb82d43a6ed87f107f28edb5483a5c3154c5baa7174c11b73c808bf83','2895c1461cf7e969.GHl3zxrLERVszx0cJ4uVHoFmNtXxbFM4DHPcg9IJqAQQ-6M5pqlzxCS0HA2gkdJREvsMjTDCAxzBoy0iZJBpDQ');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-21',1,39,'wrong',0.0,0.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 21?','',0,0,NULL,'','','','8810ad581e59f2bc3928b261707a71308f7e139eb04820366dc4d5c18d980225','536a411514b0272bd374ca42b5a0a1635c81a089dff01b9032afa59d51142ddc','2895c1461cf7e969.NerS-iiFYQZar_203T7LmtGEWQiftxG_HJ4D1b87-4DHP64CHlAv7k1PWjajlRrq83HHfcz1xMJypLmzK4HTBA');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-22',1,23,'c22',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 22?','',0,0,NULL,'','','','44bac339ae3a5d63babca7865ede63ce752a7f9895ecbac4f511524b179992c3','7fdcc1f2703aa88e509860a1efadb5e325495a6258124223774902a2e7d221e7','2895c1461cf7e969.PiYzXmUUbwNcw3gx8tNfGksBkpiNMU7-Cfhrk8FWpDUXcQZ0fsKfJ4xFLW2yfr01h6Pk6CIqiYRH6oqcWobOCw');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-23',1,36,'wrong',0.0,0.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 23?','',0,0,NULL,'','','','8810ad581e59f2bc3928b261707a71308f7e139eb04820366dc4d5c18d980225','2fde88549d95c86cbe40f9c76bf7433c37b62abc07050db4fc3e14c91977b7fd','2895c1461cf7e969.0U0EGC9k3voGjHgtvzhhlg8EpR0k4OyX9gdf9PukGHf1R5kgo2na81dwTf9A-Y2w6IAxfV7l0nqp9bLo0p9TCw');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-24',1,28,'c24',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 24?','',0,0,NULL,'','','','601c218b06bd8acf858fae088f77b00c4bd04c67966215229cf838a692889f5c','41c6b1c74931065bfd9cf3f419de82eccc9fe7f294789d9b73c4e762c036b3ff','2895c1461cf7e969.rTCs0_O24BalPR4h1e1GlH7S6lxyY_Yc4_Pfc1HlTHRNsMGE2We2IJTjEG-uYsc5KVCPDPdclmGRSj-xE8p_BA');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-25',1,56,'c25',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 25?','',0,0,NULL,'','','','30994f805c4776d662660ba6840d75a1eddf4dff61ee77cb1e6e2a8f124fe73c','737f47c462e64403abe3ec66661708c7aa150be8f796c73f65af8df1cddb1cfa','2895c1461cf7e969.3MBBziVN7mol5NRTUd6LeEAuPAAfYrvrxpSzwpcPTqfYuqcPTB3B4btbfgVaXq2hlZnkCdy9KHHfVgoxWbXqBg');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-26',1,30,'wrong',0.0,0.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 26?','',0,0,NULL,'','','','8810ad581e59f2bc3928b261707a71308f7e139eb04820366dc4d5c18d980225','070d2783f6a5e5f6a3131ed48c03e9a6eedead176d80a364b89d5d0c9a036eef','2895c1461cf7e969.ZHWytQxNz3154eYN1CTtaNpyGDndInhqMZw9Ntl75PGCm9WbT7yiI_AZULvJOiYtXziKW5auEWjTisPy6XCDDQ');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-27',1,38,'c27',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 27?','',0,0,NULL,'','','','a1a7dd9c9f098d42fdf74982460899db4125049e1b98423d5c34efd59e996a72','2be056f22e85af24b0143fbab05eac26bde4ed689cb960ffa5e30f81bcdf2447','2895c1461cf7e969.6_nbniEBAyvvoKKVi5s9cPqDec5nxbBUzab2eCAuT87-p0MgBy3crZdFafjAVtVSYa_lQZxHD4qDKGGq_MRnDw');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-28',1,53,'wrong',0.0,0.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 28?','',0,0,NULL,'','','','8810ad581e59f2bc3928b261707a71308f7e139eb04820366dc4d5c18d980225','92200d2560894a17d48ddbe352581563caa564bdb8a9c0d9fe36fa930d1ae50a','2895c1461cf7e969.Dc4AFutFF7WDQBX3asnQ4JKsPoOJufQghfLov7AyyCOPzSaTjuebz4BohcHYZ5CywjbVq2wBmKbD3L9gPF0RDg');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-29',1,37,'c29',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 29?','',0,0,NULL,'','','','ccbc67e5618cedf55383939a12b4630078f5208b198a0931ea280166c9a1615e','94489384f9342a72147f5acabfb7da311690adb72376fd9f8bb90ed158e3dd05','2895c1461cf7e969.ClyyNGqtJ1NulTkVBbabYR7kWkubB6vsxJGuVYI_kVp8QzwfFCmx6Ht7Lk4mszxqxaQ-8bNgj54Hcduv7HRsDg');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-3',1,35,'c3',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 3?','',0,0,NULL,'','','','7c1c97df17c066924822b0af09a65251554962c61e23329aed04cd19020dc3b8','c02e035713078549bd80528f0d167ae37f09a6692568b9d893e0e20c4fa6d34e','2895c1461cf7e969.324kAHV5tQGYnk1TOD0-nDilmfvfL8oZBQ0RMRki2jXMkHNHInAqMMXbwFmRnPi0LCjUsjo4FqctM-DyHnQrBQ');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-30',1,13,'c30',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 30?','',0,0,NULL,'','','','e6e2d858bd59da036652564d29a5601bd7d35ab74632f1084b90c787a99efc59','8e44e8da6bb61d97bb70ce355be38b6e13428f4ff239a1cb897df92f88eb3554','2895c1461cf7e969.VkJFq9gaoUWo0aPX-SltAdNY3PekISrvngNyLHokuc7-2ZpXmIQjCMBi8w9Whs-_h2MHrCTZQuXYZHxCGPrhCw');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-31',1,26,'wrong',0.0,0.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 31?','',0,0,NULL,'','','','8810ad581e59f2bc3928b261707a71308f7e139eb04820366dc4d5c18d980225','35dd433287f7f5ab99b70401f92f30556d6d5fb84bc56f33f663c42b6018cf51','2895c1461cf7e969.eRBgNiH_GEYqglw0vemcAVe5oAHm1rnvS1v_F5PkE3zfhiQJbWiHxgtER7AtuFIW4SSdd2jFRY2yB42W1mjGAg');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-32',1,10,'c32',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 32?','',0,0,NULL,'','','','1c1e6b3284ca5938010859383096aba8743cd03a3ae800fc6f0e03ea0c9f2286','40c7eb68588df375a20c0c5337871a519b6c40dea54aecb237d6e1699858358e','2895c1461cf7e969.ooJjt11hKrQWmPxw38yzXhb0vlN1PQ7HEQnEgDdqvtPzRSrNW3FhAHEZl9_V5B4Qz___fYL-cSTkOCZJhgS2AA');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-33',1,11,'wrong',0.0,0.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 33?','',0,0,NULL,'','','','8810ad581e59f2bc3928b261707a71308f7e139eb04820366dc4d5c18d980225','09b9c1cba9b345362148dd433c7e569d7b006387bfe41b670158cfab57cb753d','2895c1461cf7e969.kk_D5HMI-xiJM97aTEdG0syyCOHqjxxet3XasmJCgqPnXfHEIjERwlDa5Lv4kBrijDyFmDDmZFAaSXd1gGuJBw');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-34',1,7,'c34',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 34?','',0,0,NULL,'','','','904b330673bbc2aa27ac4124a4015ffb259854668267d67ff943cf5fe3949d4b','fabbd44780538d27d3d3e7ba8485058ef7bcb8b4d4af9ea95c927bdd83acbeff','2895c1461cf7e969.V1em5QWSPOagUrlC5zGzUMqMJqtoJT6CWZcKksaqxT-Eva0K41yuT6JbgoBe9tNK2JRDSXR4NPFubXv3mio0AQ');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-35',1,29,'wrong',0.0,0.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 35?','',0,0,NULL,'','','','8810ad581e59f2bc3928b261707a71308f7e139eb04820366dc4d5c18d980225','07b66e8c87efae720d8372671c74c2e05764eada27ae383eec02bcbcb4281f03','2895c1461cf7e969.pmKcfTCp0twOJjQXXc40KxBURaDB8syv6uzEDUv2lL4-xR_fttR4YMENhXj94_1FI4RIgoQB8Nphjnr6olWgCw');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-36',1,31,'c36',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 36?','',0,0,NULL,'','','','07b64c3eb325bff0127926387c94275254119eafa8963f366881ba506eb57415','4baf9ad7ad2f053d7f8f8244f0159e11e6af74e22b9e4b3ee08fe6318510a848','2895c1461cf7e969.F4RIJFLvalxPCJmy-8UIJ8tWkwz47vbGrlC0V82xwQiX2h7ivpIw8ZuahhFti_jt4uwEsI6q1wGmyb66vAUDAA');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-37',1,44,'c37',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 37?','',0,0,NULL,'','','','e37582d37f58d2734e6656a1a9cc327ef45e20dd32a65774cb3f7337f84a8bd5','82f240cc054a87715a2b1aa3e8545ef8b13d202892be7cac9836695f85c8ecfc','2895c1461cf7e969.57IDVyky56RADsf3NkGYNOsPGceznZ0vENgNBbvqLad-QWhyYv5_MvwFI2-S_2ZpvPD_h2KnjRyT8S76h3iOBA');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-38',1,17,'wrong',0.0,0.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 38?','',0,0,NULL,'','','','8810ad581e59f2bc3928b261707a71308f7e139eb04820366dc4d5c18d980225','6a167efde36e28fc4493f7d773433231ab83cad13f581f185721e5197160a1b2','2895c1461cf7e969.UmJK-q1s6ilsIuFvS_e6bXMlAIDrxvoCZlu6I6t3DYuUH2khj2VozdrsCUwWzXk6zXwe-7AXASvuo9cNUefZCA');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-39',1,5,'c39',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 39?','',0,0,NULL,'','','','612b5cdb28942f5181b460870a1e84678bb5269642ed6e9687f9add65c28f9c0','7e42dc9337558ef5539bbaa7038b8ebde6220cc8c34444a8ae67d0e39e051c5e','2895c1461cf7e969.-ChG_XIIP3UiGX9Jhmlkr3qnL8uHPtEV9_TLeX9lVpVYaBxEJArOFFyMUpdwsgduDSQtEtWqm0kbLUwdVUejCw');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-4',1,1,'wrong',0.0,0.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 4?','',0,0,NULL,'','','','8810ad581e59f2bc3928b261707a71308f7e139eb04820366dc4d5c18d980225','01b9ec4de4497145bdae11e059da8c166f16964575624a154ae3ec34a9e0091a','2895c1461cf7e969.W1NGrW7hwJHWmiV1jIqic7erASM9JxyJ-WxdZIAOMobGsZrLTHg2tOYW3kiDyMO1rZJghof4T9A8-e5LbwGGCQ');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-40',1,9,'wrong',0.0,0.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 40?','',0,0,NULL,'','','','8810ad581e59f2bc3928b261707a71308f7e139eb04820366dc4d5c18d980225','e141515d56154fb6a36e908c3e96fd74e7668b1e91775fc28cc6c84787900845','2895c1461cf7e969.Yf5SHOxlAx4XIaxjkmggOt84Q4WPRse3b1nnFZXLtwMpN2rYKG3KZIey7h25RnoWLQpIVMjJaGbiKYLGzlxsAQ');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-41',1,0,'c41',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 41?','',0,0,NULL,'','','','83ab50d90842e76cd6e5ea9325cdca06133554869e44a14d1f827d76ddf3719a','8157e70b23a05782f54382b57bd25e586cb42189f92c9346cbb8a1015562b145','2895c1461cf7e969.FnmjQACm9EYRxhS3S3dO6hLTKc6DcZIwKiPvbTbFS7WOGzCon7MQ-mXlY9kmd8-JphQ-matwDm_mCHI4190JBA');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-42',1,8,'c42',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 42?','',0,0,NULL,'','','','438047d41c7eb3cfefe194799c57af84a900d84a3f23510056ac6052ccb03f20','e99679eb6f704b2f3f3cb992f5948001f12ec308962e0a83e96ce5875ec8c7d4','2895c1461cf7e969.kS07-0W4v5A-VsI7uejlMknnPelb4MRw5BLVmBNqq03bZful2f1rI5DEJ1TtCEdZ3oukCBSp5kFsw7SUgGiYBQ');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-43',1,4,'wrong',0.0,0.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 43?','',0,0,NULL,'','','','8810ad581e59f2bc3928b261707a71308f7e139eb04820366dc4d5c18d980225','fa1a471d03562471c744bab3feadf80e3592a21905e82d7bc55c40ccc2224c54','2895c1461cf7e969.9H2qbixtOBeH61etGHFyFrV7xZZhrLvTbxlQEdA3e5lbwyXFIOsXkfHTl0M6XarPvuMaQB7T0suL8XgsuzgkDw');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-44',1,43,'c44',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 44?','',0,0,NULL,'','','','862e55a06e07c38d9dd707bbc868ceaffc2286d57fa18af0e25e882c0061e40f','8cea2d42209f682832cadb5a0675977586818d810770f47f4b2595c37b03cc82','2895c1461cf7e969.D8AihogRF4jFUgiF8-6skQIOGGj8DruCJUOkaTUGViVYRx-xXWw6WBPV_ZpahgKyk70Py6SGZxWQc20RuI66AA');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-45',1,49,'wrong',0.0,0.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 45?','',0,0,NULL,'','','','8810ad581e59f2bc3928b261707a71308f7e139eb04820366dc4d5c18d980225','aca2e23a01fbfc597a9034e2ac5502c38925518a3508713b6ac06c8b6c80187d','2895c1461cf7e969.88g8S7ZMWD69lyOzgPKar3rWcXyHHuE-O02wdY-iS6GdGzuglHfUImWboR2hLpA6SJdfjr8eqOyqdRmPvuEDCw');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-46',1,12,'c46',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 46?','',0,0,NULL,'','','','4a17d94df67e099623e29ec3926fd27a1fa63b8fd8c4fc5189ede49195c378f8','3fd7226467062126512c1ce5e15e2131974595268b892b804de3b50f0a613707','2895c1461cf7e969.xfCluQbr1gPYnwvHVygK-I5PN2byq4ALJ8U-wqNSArWrSpdSMlO0iAQUV510VMpJd33UERHQ3D9zDtTFz2vPBQ');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-47',1,25,'wrong',0.0,0.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 47?','',0,0,NULL,'','','','8810ad581e59f2bc3928b261707a71308f7e139eb04820366dc4d5c18d980225','072b39a0b71671167b3f716b55e6de2cce9583e996303261ebbfa836f186bc42','2895c1461cf7e969.DkVtrPBIKU4c7v6L_DkqDKkSIbX0UrKNPmO3FIxZjvMwnF_aWZBSavUgQqgzgP93TPhi7VPjsXK0d550UjAuAg');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-48',1,42,'c48',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 48?','',0,0,NULL,'','','','6cb95c3a87ff8e34b4a4a99be7d105ad6e4635c382a1803836bc5bd9fc774c4d','175b97dedf74a94aca86ab892f9b9e657697d7b9a76e0b95085c921603464f10','2895c1461cf7e969.ViNw7kPl82ccFT4HFH0NZj08W5FRSpGIwIlZvR2v_WsmNHqf_5bDkcf7GbFeQT6JYCL2WoocUCjSVVVkAM4MBA');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-49',1,40,'c49',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 49?','',0,0,NULL,'','','','b3ec4de5e581a3c6d827c819f547097686ef4e49c692f8cf8091e5d5ba1ab034','83f1381ab0d036220306d2787d6f07c820b14fc5cea974772c3db64e689a7563','2895c1461cf7e969.FPF4wvWMFcnr7J8XV3ElE9Acu5Eeslsiwdx_yGeU9pvFP13Cx5KFxXyqbtrhaox7NKSvte4UC2LaIzSlGqZgAA');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-5',1,24,'c5',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 5?','',0,0,NULL,'','','','d0bf3e6ee1d668de18c9ca200a4f152062f345283ee68cadfe41204f215d75e9','df0a786d69bdf6f00e6329f2bc2532298b5e928850e25b789882ee5f84570a7c','2895c1461cf7e969._pSk8ceiuTBE1h_eZaOLNsdtBAbQ0lX7JY1Z4CefCh4mcfgairi04Eegp1_QS5H_6AAFDxGiF1rt-f-Ehy9BCA');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-50',1,22,'wrong',0.0,0.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 50?','',0,0,NULL,'','','','8810ad581e59f2bc3928b261707a71308f7e139eb04820366dc4d5c18d980225','abe95b55192097e0c2a91143918a2ca967cb6fb9c3920f3e3fe3a5ab5e16107c','2895c1461cf7e969.VfZuiyFRW7ZWf8c025E7WQHevuDaYWt2_gp5bIZkeV5NHDh4U9K4gTa5-qvW_Os9aQp4vHWT59fwD1xqEElHDw');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-51',1,14,'c51',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 51?','',0,0,NULL,'','','','9f1ed8902275f4bc02fd0e1ab797ef7682e407840c0edadf8843aa03af2c7578','96e0d5e42b936876abf4a3d3b634625f3ea9fce086be470371e132fafeb0526b','2895c1461cf7e969.R80v088NUg5T1fX6_32OTydLpVOkUkXr8tMzsJeKCX1oPzQTjIaj1Xrpc_EOfrnYXBQBRN6-CH4T166JnvmuCA');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-52',1,50,'wrong',0.0,0.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 52?','',0,0,NULL,'','','','8810ad581e59f2bc3928b261707a71308f7e139eb04820366dc4d5c18d980225','fc8d829b9de8f2336429d6f7f9cb57b877829470b3a0277383ff5e05f8fb8dc8','2895c1461cf7e969.gAm0FSRdrVJ1bUhcH8xwwI47kgIV9y1JFkLrIz29yZl_6Oy5EERsKZCuaAZ-CEzdGDO5hyEzE9sSdgwf-HI9AQ');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-53',1,32,'c53',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 53?','',0,0,NULL,'','','','fd62d74a20f5c4e8af16a48726466642a4ba415a0b168dc27b565977f21425f1','21b9b16b1cd4f6a772ddf25cdab5706605765182f22f956ac57c33a4d893dd8b','2895c1461cf7e969.veMUvf8r4T5i0SJGvu9slW15zq_Wya9DwjGfAoqi4HyJZz7zBophyQv56WMGqLaejBmD6VIeUsRDDkYPi6S8Aw');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-54',1,59,'c54',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 54?','',0,0,NULL,'','','','ff74add9f3b567f33cebc8cecbf968af334566cc3450838cc7e322aef4e6b3ae','5b18e1fc7c5cea96b4ab01f083b6055387db7b87e002c51eea993a928856d2bd','2895c1461cf7e969.jfey3XJ2sEK7q48XK7kuHCwUr3_zGDNcr10YxKrkuORtfHnxfKikMj3RBUChaDqblVjA81ywpafnTLRt7azgAg');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-55',1,34,'wrong',0.0,0.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 55?','',0,0,NULL,'','','','8810ad581e59f2bc3928b261707a71308f7e139eb04820366dc4d5c18d980225','8e7e73f54c61e704897f492ed34ef211846b1b8c501fa40077d35acae0837dcc','2895c1461cf7e969.dXfc5iUYcASQq3lnpqg4dBn0_xxL13qJs0e8aQ3gcQXuCCmpNHeVtFmzK0lenfxP4jMPpj_7n-KdVAt1BeiBDw');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-56',1,55,'c56',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 56?','',0,0,NULL,'','','','17099049915ae93633e804ef2a80b1d3f7582e8cce9827e7d7c32796e5ac0b02','fe2f3770aa374321b780554c7599bf7172811463a3fe1ea13233bc6011708b97','2895c1461cf7e969.Cf7v04dET82XA-rD_K9M4CiEzkwBABWaMDgzLYoDcAEdNWH2kDoIRBKd7WM-ZbLb4zNQHiWoFGbCWb3IjpewCQ');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-57',1,54,'wrong',0.0,0.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 57?','',0,0,NULL,'','','','8810ad581e59f2bc3928b261707a71308f7e139eb04820366dc4d5c18d980225','8f6c4bc0112ea08a0336ccc3ad88f96f5ab26275307b551e868647d78b8d7dc8','2895c1461cf7e969.vDla9fYy7YWB5XRmzMqWMcMkqO68EXF9tI1BiLHURSqe9_mmTAXWHiVqkhvo9nRaMDi4eHfKnZ57tjoj1eWQBw');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-58',1,18,'c58',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 58?','',0,0,NULL,'','','','7dd2431650f65cfee5d408f440ef4f85d1fd5a02c5be820c6998a72bf8fde684','785f1316c68ff9f00ba3ad042afc70672457edc3ed9739d9cf2d9ad637e59106','2895c1461cf7e969.DmBWYEtQZvGB4uWCvkh4Dw0gwr4qcNlemK3NbQJC0Vj9tjeiaJyXVJffsOOpiGEKCY-iDWbLzrv6joEA3iYGDA');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-59',1,21,'wrong',0.0,0.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 59?','',0,0,NULL,'','','','8810ad581e59f2bc3928b261707a71308f7e139eb04820366dc4d5c18d980225','2aa04a1767fbb4f2a23601244beab5dc12c33470fcf22af718345bbe416d9f1c','2895c1461cf7e969.Gg-cPWUa9cc4Y6iHcpiFEveeX1QTUF6XImDqiC4QXPho8yHmUhjtdMHHrz-A7VvAQLs5l81izsqHcKawK8HKBQ');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-6',1,57,'c6',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 6?','',0,0,NULL,'','','','6db53c9d5a2ca72a85ddf3a681c0d9567899f4c48632a2e9b0beeba0d6938485','80ced323e5e5654a108b476caae9d69d9e3effa2377f75862176e8f1ed5a778a','2895c1461cf7e969.PTeveX4AXO7o-qpqTUqEMdv-Ji3EfHwSHOB2r8Z3YOoj8IyzoabxmDDcXvpDC8tFbMgBdGcq4P0pjNBK79_6BQ');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-7',1,3,'wrong',0.0,0.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 7?','',0,0,NULL,'','','','8810ad581e59f2bc3928b261707a71308f7e139eb04820366dc4d5c18d980225','78b015e24b96382aa11042056fc946182694d6e1ded43fae60b2833dfc9e2051','2895c1461cf7e969.U34CG49gLjc7-u4acdqur2ef4MTkAluQUjXf97jcPEN0mf-XlTTzeZUHNSFFb-0Q3qpTAFqMuDHgViDTtstIBg');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-8',1,41,'c8',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 8?','',0,0,NULL,'','','','7ed6a8377b92b49472195f1201af304341daf4abb3643f837eafb38066111f6d','127689344ba9708933cb1286918b48daf63991a3068df4a53e81690d07b01731','2895c1461cf7e969.V24POp2pNTK1r-v-gEFV-4PCLbfV2dn5MiCKS3aU3qoroHtX1J7dgsE-CY8ahV_ibkYKUMgt-_2ECUcJseTWBg');
INSERT INTO "sample" VALUES('run_0000000000000007','colour-9',1,6,'wrong',0.0,0.0,3,1,5.0e-06,0.0,NULL,'','base','Colour number 9?','',0,0,NULL,'','','','8810ad581e59f2bc3928b261707a71308f7e139eb04820366dc4d5c18d980225','dfcad7d66b7af93af0b0cc4f0dfbdb47d037bd4db43b2c92a3f0e5c12b794724','2895c1461cf7e969.g0yTOqU3vJbuP1u3nikvntr2MOpRF80tQ8tYML0m4M0_46k_nSxR03p9dcEqwPqTJJodYJylcbiPJQs6cLZBBg');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-0',1,16,'c0',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 0?','',0,0,NULL,'','','','122c597083bd438b7f6d72af75d025948899647711b806bdd2cd82fa69713db3','92e96e8f914667a34b5bfd58d1fb5ba81b702e2cac2e5dd9b36dd7bb6d099d05','2895c1461cf7e969.UINMsqYYOWZU8q8oA64Vg8WvVuuIXMEsVyh-zeLouapmgaOHDs28D1Jxk5QEwvFkDFVDmHWJ-WOlfwHd5kamCQ');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-1',1,46,'c1',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 1?','',0,0,NULL,'','','','d0f631ca1ddba8db3bcfcb9e057cdc98d0379f1bee00e75a545147a27dadd982','2b75937ffb7e560b8088ca9ecb299796c603147ddaadad97312640acef856006','2895c1461cf7e969.N3r_ZEcQi2Ze_SiVt2zrUoyjxkMEOfG1-OsR3MoaO84AOmkfWwmGlSKsEhKhcJtxF23DfrXEKkLj-F_RqAMdBA');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-10',1,27,'c10',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 10?','',0,0,NULL,'','','','1f311134efe1f98d5a9e049b42d7c73c3f9d825abe3319e16e21cfa65fa368b7','3938d1b170c5ba13f1e641720930fcc799e69122791c216ef7f91a3d7c7ffddf','2895c1461cf7e969.BnBql87fFhjDd3yMdq-CVU36qqjL7_YvOYbysMBX8USgoFtVMpWVHuIhZGcDGRp9kG_maaKUMnM0Yd-lVrMyDg');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-11',1,52,'c11',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 11?','',0,0,NULL,'','','','f4baf901d1b9fcc11a9d3c714fda524455a9875aececc7a30b202a058bc696e6','2a7baf8c2829c8142723ed560d4dbc6573795ff97ef05d5264c525283a23d495','2895c1461cf7e969.p1Dp0SNL2oomgu15AVaZYuAcpogS2quHmcJaPhN4Cx15FR-c-QCMjg3HcLKDyysepkCCy8_-3i5RQGht8e8rBg');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-12',1,45,'c12',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 12?','',0,0,NULL,'','','','ebbfb53547b778a125159d0de39c0be05b019fa447e6d358bf1aae65926aa553','58125bf43d43c2183fe84990bc1f9bfcc8d0e05fa5a0c80571ac5337777f2df1','2895c1461cf7e969.ZIkLv2cqOXpOwhMCTSZbaNvQurXIPOK6VmzE4FoSyD3sSo2LbPAL2UxU7zN-0Qj0r_yDspa_XVn3HA8wI-siAw');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-13',1,15,'c13',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 13?','',0,0,NULL,'','','','74dda5282c81de22f5c8cc9e637b115f3666eaf03e57ae606ed60bcf5e5e3e1c','ae280ce1b2132bbf773ce236fde1ecd00ce6464c3b7e6270343819175df4c674','2895c1461cf7e969.f9BhGJY2t2dHLE3AcGgxO-XEMZWiejvRVHE8RY6Wg0jLtGTq68wOP_Tj2KJ5G_P55uo1YADK-vABTvHcAihdAA');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-14',1,48,'c14',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 14?','',0,0,NULL,'','','','f1727214f4ef703f993fa3e8abd21f194acb952a083c86cb2b0de70a8b09b9ea','dc1984bd27d4434755342d9fd06981cd48e0d4bde9a05ed77b9b495c37307100','2895c1461cf7e969.fit9kxK3DCquDxmL2OfCmFU3-lNtvRcTgX4BOTcG9hkNswhGsPri9wuyZx3iI8VJ-ZYtXiaBxfvL6_WKiTD7Dg');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-15',1,51,'c15',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 15?','',0,0,NULL,'','','','f37415afb05362d3c3a80c9fc4d16d9aa97c06a1d2e01689821506f1ff6ad759','8758f25e207d70d488f7649c4e5df25ab3c56ed77a3a98622f5c29aed701b716','2895c1461cf7e969.BBJqo8jNbOEQU-KX_CDSSx5hytPoWhrfYxoJA-eHSxyzfVpUhu8N9OkoYIxqmhq39fE5gTuwGmCoJ9rmtesADQ');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-16',1,2,'c16',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 16?','',0,0,NULL,'','','','3b97f0c782c961bc4db8a5839deecea57c9e97c66066fde0b252f08934f43b42','bf14567cacdde6111955d4ba5d9d92f37f18b7ef8b334e0ffac35a57b887b49b','2895c1461cf7e969.I_I2O_x0po6QgXz2bcvxgajp1rwAd4ZAquEXOwHHuH3zx9XFjTmVQUEETR4OX19MfFCtm0ur2H4N4SaXeR1uCA');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-17',1,33,'c17',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 17?','',0,0,NULL,'','','','3c44f43ed3a9baa9a1780533ae5bc50412abdaa03496d52aa9ffc577171d85cb','02663649c419f5d0997b92a67ed93b4c975ad552117ea6cce8b0b923b5c7ffe0','2895c1461cf7e969.tGw5lYEKT7hoWXajBw9rp03tPdDqnwlKQDPxC3uOt3nn4og6fcnqU7YWmTQIC0vQBuVjaIvn2Q9yC3LVuNtxAw');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-18',1,47,'c18',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 18?','',0,0,NULL,'','','','089ae52fdf81a5ee3d7b4253ab0a6b61c585f5717f7e32d1b62fbf699ad5b6bd','c939b16c889e375a74e8dd67064635b50f1958584f597e54ff09c23e7b6a9ad6','2895c1461cf7e969.OFFUli-9-R6byY81aGzXkbu3Q7T1SY6DM2sgj9BgUMlRxiUpzf4qw5DlCo7bdaLaRp3xlrxoTEJ7_dvr86jiCQ');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-19',1,20,'c19',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 19?','',0,0,NULL,'','','','63a98318c415bf5b00c9d867e4109a9d9caf8238e450fa4b810457b3f9412248','7595f1770a0c8837cebd2dccea124610d444d1ad02bb44dd570f1d11a2ae12cf','2895c1461cf7e969.CpXN1TMaMxGIKGeXvsZGxVoa9vukZYmYq8_PWY6VVpdC7J0kcz0ZVWmGZbt93xATJ0r1ZDHMNOzgVkPX_Sr7CQ');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-2',1,19,'c2',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 2?','',0,0,NULL,'','','','9c0abe51c6e6655d81de2d044d4fb194931f058c0426c67c7285d8f5657ed64a','80d3566c8ca2521110e2aa94623e3a86bf8595097e18bf334a86565d650b072a','2895c1461cf7e969.78RH6WokYh-2UZ7xGXtf-nBvGUI7MJcAeHIxVsVl0RH9IA5WxP3nwCK-cD7wiCkGPQzAdLw73h60l_vGzHFtBQ');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-20',1,58,'c20',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 20?','',0,0,NULL,'','','','fc7fe9c12d74a4246c13f9200b5209ea8e4c96c0702c1b13a97ec9cdf467a214','cc0edbaeb82d43a6ed87f107f28edb5483a5c3154c5baa7174c11b73c808bf83','2895c1461cf7e969.tXU00TtN_lZJFDReQAd_hJqqC3Gk_MbmdNb85MaBZgsXr9e_9sz3aqoGbB5hDV41fVCyfZLqK68N7avV85xmAg');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-21',1,39,'c21',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 21?','',0,0,NULL,'','','','a9f6815747c1b2f9466e778c2c0c95c0758f495ed7d15368fe47ff9d9eccb674','536a411514b0272bd374ca42b5a0a1635c81a089dff01b9032afa59d51142ddc','2895c1461cf7e969.n2VkZjsnSPzT2AhN1joNULbEWyMJezuUZtuFLOUvFdTmucyymlDvp-RlbwJ9OpKfvvx1A3V7UBO6u6Idd3MDAQ');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-22',1,23,'c22',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 22?','',0,0,NULL,'','','','44bac339ae3a5d63babca7865ede63ce752a7f9895ecbac4f511524b179992c3','7fdcc1f2703aa88e509860a1efadb5e325495a6258124223774902a2e7d221e7','2895c1461cf7e969.z5L9BYb_01Vd_cABAvaQZIT_LA1Xnh6SgaFDuiwJrG59zmW6q8xOm5xbSFwhxfB-SAVWQ01ILHjBqoQ8A7xvDQ');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-23',1,36,'c23',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 23?','',0,0,NULL,'','','','0b5000b1e9479ad1a8271295bc977bbf8362cd109ee18999c2ff8d3095438b6c','2fde88549d95c86cbe40f9c76bf7433c37b62abc07050db4fc3e14c91977b7fd','2895c1461cf7e969.bDHu3t-QJrycMsb5BbzG2u4x-SD5wImJyZ_ZdGpsFXNVANzOcj5lnQp0UTeppmf08ahFV_tU5nlZgn2ivcwBDQ');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-24',1,28,'c24',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 24?','',0,0,NULL,'','','','601c218b06bd8acf858fae088f77b00c4bd04c67966215229cf838a692889f5c','41c6b1c74931065bfd9cf3f419de82eccc9fe7f294789d9b73c4e762c036b3ff','2895c1461cf7e969.Km3IUZTWbi_yfU1Gm2xC82_w0imbfHPe9VBYwYSllp3EnUwwwGqGv23SGbce5b7GNGwqoxj2KGmojA-eMCPPBg');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-25',1,56,'c25',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 25?','',0,0,NULL,'','','','30994f805c4776d662660ba6840d75a1eddf4dff61ee77cb1e6e2a8f124fe73c','737f47c462e64403abe3ec66661708c7aa150be8f796c73f65af8df1cddb1cfa','2895c1461cf7e969.KKXtBAXTvy779nR1YjEZOao5ChMFDO8inV4La1olc_fUR3sLXVF6m3U4lgn7CTbEoMTQKKqlXtT_lMTwuG0OCA');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-26',1,30,'c26',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 26?','',0,0,NULL,'','','','16b21a8857e573d0a76b9675f2b6118b5c77d6fa8ad2122fad22bddd21c8b4d3','070d2783f6a5e5f6a3131ed48c03e9a6eedead176d80a364b89d5d0c9a036eef','2895c1461cf7e969.-8oPOljqfkErS_DhMZ-mVfylAGMVlds_M2C0Qoxbko2e4yXAftN3tHtt8Oa87DI7n7M3C4YoEXs2FlLPhBTBAw');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-27',1,38,'c27',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 27?','',0,0,NULL,'','','','a1a7dd9c9f098d42fdf74982460899db4125049e1b98423d5c34efd59e996a72','2be056f22e85af24b0143fbab05eac26bde4ed689cb960ffa5e30f81bcdf2447','2895c1461cf7e969.Tfew3FQlhivhglrmjLwWn4EOK7dTvnHj7wKTjUH0fT0wIec4uESETF0ydrgDMZ3fWw9Q3fow_a87VsYO08WqAg');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-28',1,53,'c28',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 28?','',0,0,NULL,'','','','a23569cc57f667a1b8ea602875bf10651e964c2fc9512853da7fce2cbf27adf9','92200d2560894a17d48ddbe352581563caa564bdb8a9c0d9fe36fa930d1ae50a','2895c1461cf7e969.NkSU8WIypcN4PC0KUlJzqKo3NDmvop-D9Vr4Owx_PuGltzx8NhlJVKpF8nkREG7-S2X2iHO1KU9eLun6w6VIBw');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-29',1,37,'c29',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 29?','',0,0,NULL,'','','','ccbc67e5618cedf55383939a12b4630078f5208b198a0931ea280166c9a1615e','94489384f9342a72147f5acabfb7da311690adb72376fd9f8bb90ed158e3dd05','2895c1461cf7e969.wqPPSU4o-3KA53h32zbIFUWr_04VzLQEmL4fDce-_7MIlsTSMwFgMKWPLXwDmPnYj4xb6j0zRd34j0-DTydnCw');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-3',1,35,'c3',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 3?','',0,0,NULL,'','','','7c1c97df17c066924822b0af09a65251554962c61e23329aed04cd19020dc3b8','c02e035713078549bd80528f0d167ae37f09a6692568b9d893e0e20c4fa6d34e','2895c1461cf7e969.I1kqzZrAjdDeB6I4LMi7JLS4kU6TdJQYXOmQJMbuEnYLAc6_4opwJBJtKtSdFzF5_s__6qhejf5KiVtRhtzYAw');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-30',1,13,'c30',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 30?','',0,0,NULL,'','','','e6e2d858bd59da036652564d29a5601bd7d35ab74632f1084b90c787a99efc59','8e44e8da6bb61d97bb70ce355be38b6e13428f4ff239a1cb897df92f88eb3554','2895c1461cf7e969.1kQddby7-Wj4mumLUfVvVKSBp5RwhBoWEWISToYWBlQO7RLge016ZkbbHb4efC4EO9pfXqK3-2CbIVv6iMh-AA');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-31',1,26,'c31',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 31?','',0,0,NULL,'','','','f9249f91302b9214568d45eabcd8bdf116f187f0d845148a9c09f67671cc90c0','35dd433287f7f5ab99b70401f92f30556d6d5fb84bc56f33f663c42b6018cf51','2895c1461cf7e969.P6_OdMcbyq5Rf6u0ybOW2RH037bxZaJdrL-Kz5ZiGeQEwlxjpCZvLsaWiZeetnLeNd6WMIeHXSj5C1uWPSijDw');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-32',1,10,'c32',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 32?','',0,0,NULL,'','','','1c1e6b3284ca5938010859383096aba8743cd03a3ae800fc6f0e03ea0c9f2286','40c7eb68588df375a20c0c5337871a519b6c40dea54aecb237d6e1699858358e','2895c1461cf7e969.-8gA9fZr87bUXqRLxbHXVPvnqrS9etvb4jnfA2uPT7e1KKg2-bVDBBC3cip5xhGtGivmzQK9ccuWdn_xhG9qBw');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-33',1,11,'c33',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 33?','',0,0,NULL,'','','','2ba8130322ae7d78c7f54f86b92087593fb1321533531541a78a05b61f7d525d','09b9c1cba9b345362148dd433c7e569d7b006387bfe41b670158cfab57cb753d','2895c1461cf7e969.Q_Ux63sNr-jTftLUKU0Nm4EDSrKohj4HmNeFh8nGVn7RugGX1tVrxDgyY_phW_klHKW6BDm1bpW3C2cBekDWDw');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-34',1,7,'c34',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 34?','',0,0,NULL,'','','','904b330673bbc2aa27ac4124a4015ffb259854668267d67ff943cf5fe3949d4b','fabbd44780538d27d3d3e7ba8485058ef7bcb8b4d4af9ea95c927bdd83acbeff','2895c1461cf7e969.jCc8tFXpwJbt0dqxIpBslLIub7upc4OJeH4hjYxuAR1Z-x7Qs-srU8GxXRmIF1TOxchd4KMYgzYs0IThP4A0DA');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-35',1,29,'c35',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 35?','',0,0,NULL,'','','','703eabc8d6c8f2a8a3e79b5d929e61dbeb4dc5507b8e1a872ecf2935ff3b37eb','07b66e8c87efae720d8372671c74c2e05764eada27ae383eec02bcbcb4281f03','2895c1461cf7e969.5snsuEv9nIWJVZExISQptwfV4b8jBV7Yc1XMhSWGJ5_eOzkCEoBA64OOl-uwqBymchz6QzCT3UdBU649QKjJAg');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-36',1,31,'c36',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 36?','',0,0,NULL,'','','','07b64c3eb325bff0127926387c94275254119eafa8963f366881ba506eb57415','4baf9ad7ad2f053d7f8f8244f0159e11e6af74e22b9e4b3ee08fe6318510a848','2895c1461cf7e969.zX8I5EBaAOBLVRF94ZyYvsJMli5PWEIVk3LmpLKoXbLEocBx3x2BINU2_wPeENjb7t1bzMQdX3s9rJJRTj8SCQ');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-37',1,44,'c37',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 37?','',0,0,NULL,'','','','e37582d37f58d2734e6656a1a9cc327ef45e20dd32a65774cb3f7337f84a8bd5','82f240cc054a87715a2b1aa3e8545ef8b13d202892be7cac9836695f85c8ecfc','2895c1461cf7e969.Q5ySUFg58cqKEkuNA5cF0Bf6FzhHzpit9s3STmtuvLN7DyikYgeYuWyplyvFpDhuKFWleo9hG8sHQsdwP5c6Dg');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-38',1,17,'c38',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 38?','',0,0,NULL,'','','','b6d0d33912c7a15116d16f219d1cfc36911e1ac98427e022a33b3ac16a695b7d','6a167efde36e28fc4493f7d773433231ab83cad13f581f185721e5197160a1b2','2895c1461cf7e969.bM6c0XNXRKverRmdcDAKET2FsqAhGHFb-6OXCUgj30XXyjvH2Ss52s5nTeWhIt8N2-71zm_oqfytz6OT9_yqBg');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-39',1,5,'c39',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 39?','',0,0,NULL,'','','','612b5cdb28942f5181b460870a1e84678bb5269642ed6e9687f9add65c28f9c0','7e42dc9337558ef5539bbaa7038b8ebde6220cc8c34444a8ae67d0e39e051c5e','2895c1461cf7e969.zQd68S5M1UpigsXwfbqUnO15fUTilWMt8AbUUMWMXIPmf5Q9JagpGyTCO0xUMiE0VZ4LF6aJT4SSRcUmoV2HCQ');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-4',1,1,'c4',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 4?','',0,0,NULL,'','','','0012a3fa000c5dc26ee658c3c58e12cecd58d6455cec3d5621f0c787675b38aa','01b9ec4de4497145bdae11e059da8c166f16964575624a154ae3ec34a9e0091a','2895c1461cf7e969.Eex3CdOms5vpextNxN0CRhVJBeouUU7KCtWnz2jzI1WBULVvDkWwoVaPVmO0gPouKOond6DFph1FGyjiNl-QDg');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-40',1,9,'c40',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 40?','',0,0,NULL,'','','','1912e1b5d55f3cd500dbe67e0217d2114161a989fbb3a280f06e27b4f95da56d','e141515d56154fb6a36e908c3e96fd74e7668b1e91775fc28cc6c84787900845','2895c1461cf7e969.JYo6MA0l8otEXRKthnT6nvMAOCdSqySawYaJDA4QQM7Ee4x2JS6nt_iayRqhx44q7j3e9xmATfdqI7C_OgdIDw');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-41',1,0,'c41',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 41?','',0,0,NULL,'','','','83ab50d90842e76cd6e5ea9325cdca06133554869e44a14d1f827d76ddf3719a','8157e70b23a05782f54382b57bd25e586cb42189f92c9346cbb8a1015562b145','2895c1461cf7e969.kNMG7lLKlKTbp9CA-5iBLVsS3LYsWJt8l5z8vhwn08pkt3gaePJbFW3_Cc9Jy2TMgwZg_oQHK_8ahgnMD0JSDw');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-42',1,8,'c42',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 42?','',0,0,NULL,'','','','438047d41c7eb3cfefe194799c57af84a900d84a3f23510056ac6052ccb03f20','e99679eb6f704b2f3f3cb992f5948001f12ec308962e0a83e96ce5875ec8c7d4','2895c1461cf7e969.U4pkErMjcOWNuyM6NqICn4NiWrRRGnzzIeYoe_GJ_mxmEvsWRcPYsf1ddLdHoxpdAARp4Z06ac48Qr8xGLH-Dg');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-43',1,4,'c43',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 43?','',0,0,NULL,'','','','1b5c1d9a158856f996ca23425ee3376ebc9e0d8b5b4331a2ecf4fa822cba9e5b','fa1a471d03562471c744bab3feadf80e3592a21905e82d7bc55c40ccc2224c54','2895c1461cf7e969.xgzASQ82qNxkC-7SgMvjb5HzudqyEzJtIu_LIhOtBCgAfgC6ivTFXX_9vPLe6ry5l540RhWt4cwPwCCAr2wMCQ');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-44',1,43,'c44',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 44?','',0,0,NULL,'','','','862e55a06e07c38d9dd707bbc868ceaffc2286d57fa18af0e25e882c0061e40f','8cea2d42209f682832cadb5a0675977586818d810770f47f4b2595c37b03cc82','2895c1461cf7e969.nDU5WCMbDsRPBK2v6ry8ytoy-Fpw1TIMstnvKu3ITATLAa7DrkSB3x_qdo8gwCnOoCgFYfjxhtNCCtlUs-dqCA');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-45',1,49,'c45',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 45?','',0,0,NULL,'','','','bca59ba1497b9e7fb22c3e1651606cb4123ac029077311b32a65d8651e95f865','aca2e23a01fbfc597a9034e2ac5502c38925518a3508713b6ac06c8b6c80187d','2895c1461cf7e969.w5hgYYUlZ2pc4qTukhohqAUHPX7QC274JYlpcoYVp4OQAwDIG4k1_lQR5fdc63GtPAbJJ3mabIvFOjtPe1BGBQ');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-46',1,12,'c46',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 46?','',0,0,NULL,'','','','4a17d94df67e099623e29ec3926fd27a1fa63b8fd8c4fc5189ede49195c378f8','3fd7226467062126512c1ce5e15e2131974595268b892b804de3b50f0a613707','2895c1461cf7e969.G30yzriQswxaRfaEYAcHoO0f52OtZD-NF2Fb7nelBC9bvG_UqvF6APzp7MGzXNF3cVnQqXVjmSTi1lOuY-atAg');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-47',1,25,'c47',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 47?','',0,0,NULL,'','','','11e09b3654f3569ddfffff0cc5c7dda29a2fb046ac3c4ccb45aaa574ad1ddbc8','072b39a0b71671167b3f716b55e6de2cce9583e996303261ebbfa836f186bc42','2895c1461cf7e969.LQpf5zSG3i9ENoo348_cA9rUMXM7LVTPXExyQetMDSvgDT-tY6WmpO7htg8ZM8YVPx08yhQ2ZOot08jokGTVAw');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-48',1,42,'c48',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 48?','',0,0,NULL,'','','','6cb95c3a87ff8e34b4a4a99be7d105ad6e4635c382a1803836bc5bd9fc774c4d','175b97dedf74a94aca86ab892f9b9e657697d7b9a76e0b95085c921603464f10','2895c1461cf7e969.rCKbjb8IzYsnD9M5H0DeS_25LswQwnEwEC2_xS0zUxcfQSneA13YXf6V3uefQgvwCcYUr1TflFifhiUqjGPaDQ');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-49',1,40,'c49',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 49?','',0,0,NULL,'','','','b3ec4de5e581a3c6d827c819f547097686ef4e49c692f8cf8091e5d5ba1ab034','83f1381ab0d036220306d2787d6f07c820b14fc5cea974772c3db64e689a7563','2895c1461cf7e969.btBYqiSU_KcZgS2kdERiZEIda_6YF2JKALQYczvRAKvv2-a_iq00w0Reu_CvLTKlyxD-HHWBJCNE9STvZudgDQ');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-5',1,24,'c5',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 5?','',0,0,NULL,'','','','d0bf3e6ee1d668de18c9ca200a4f152062f345283ee68cadfe41204f215d75e9','df0a786d69bdf6f00e6329f2bc2532298b5e928850e25b789882ee5f84570a7c','2895c1461cf7e969.LUNAiN5zPN6Ngk074jXJbjtBod7fZtAfX2OdH2duKXsWxYuUlQiVs5oe5OygZqRWPJ-FbhdbZ9wGNGKGNJW9CQ');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-50',1,22,'c50',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 50?','',0,0,NULL,'','','','e51bf8c6235d04c1a724e3f471267ad27d370bdcb509d91734be40e16f3cc101','abe95b55192097e0c2a91143918a2ca967cb6fb9c3920f3e3fe3a5ab5e16107c','2895c1461cf7e969.ixHvna5uVcu4Q8hTp0GZ5uIxXf3ySb6awAFagHBDhAxQ7ADYn26IH1ANLPudcdSTBu-1D7MnnNrIgjJYLgsYAA');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-51',1,14,'c51',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 51?','',0,0,NULL,'','','','9f1ed8902275f4bc02fd0e1ab797ef7682e407840c0edadf8843aa03af2c7578','96e0d5e42b936876abf4a3d3b634625f3ea9fce086be470371e132fafeb0526b','2895c1461cf7e969.dohwJahuFrVg7erztvWK5Sap7IqJs_vskW1bJvxHYisO7g8LAVF5K96qpOJG8P3zXpH_uap3MWbG2dHtM86-Bg');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-52',1,50,'c52',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 52?','',0,0,NULL,'','','','2962871456dcd5698321bed48c5aa435330e7032c99172e7eec4a67ee03173da','fc8d829b9de8f2336429d6f7f9cb57b877829470b3a0277383ff5e05f8fb8dc8','2895c1461cf7e969.JH6aauWYMhwbaBRtDP2ZUGaMPpU3qfybRpN8mE46jQlTiCWMOMYKy-wg-Lbn29PRtqenuENSkS7GtRZiKItYAg');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-53',1,32,'c53',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 53?','',0,0,NULL,'','','','fd62d74a20f5c4e8af16a48726466642a4ba415a0b168dc27b565977f21425f1','21b9b16b1cd4f6a772ddf25cdab5706605765182f22f956ac57c33a4d893dd8b','2895c1461cf7e969.Ipbx4xvXngakTsqZb-fDzY3ddOZHKOPGD1hU8WP9Cr84Yq5dJLpFrdgMLjfafuwKXZvhBg0ZjBPst6SWmBDODQ');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-54',1,59,'c54',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 54?','',0,0,NULL,'','','','ff74add9f3b567f33cebc8cecbf968af334566cc3450838cc7e322aef4e6b3ae','5b18e1fc7c5cea96b4ab01f083b6055387db7b87e002c51eea993a928856d2bd','2895c1461cf7e969.Sj8_b65OSZbRih5FTXpFTVbGUCTFy1Rxo-QCAL4tVJawWYOzHHcgZVQ2mqZrEmekTyronJRtuAjEIn9nRa_BAg');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-55',1,34,'c55',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 55?','',0,0,NULL,'','','','c8a5a33d81c536d7e7d20efe63aa84b7592482c0f0ae53bab8154b726041695c','8e7e73f54c61e704897f492ed34ef211846b1b8c501fa40077d35acae0837dcc','2895c1461cf7e969.cxxPFicAqV-AqP5VIMC6KfDzdhw1s6J5MrIx_Kxqc-9cG8MdZ7jESxgixMfXmXn-EgD0E8dwmLxPiMNvhmp0Ag');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-56',1,55,'c56',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 56?','',0,0,NULL,'','','','17099049915ae93633e804ef2a80b1d3f7582e8cce9827e7d7c32796e5ac0b02','fe2f3770aa374321b780554c7599bf7172811463a3fe1ea13233bc6011708b97','2895c1461cf7e969.7n1POQ8h4RtFZG4iXamzJt4g_9ZZe9ULWfOfaselL-i7C_QQL2fv0hSxB5bwewdq-3CQc20VPemStkM4V75UBg');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-57',1,54,'c57',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 57?','',0,0,NULL,'','','','8fec6247a6a573de22327a4948f959ca8a6f553bfac64803cd77b2f64e2e3eb2','8f6c4bc0112ea08a0336ccc3ad88f96f5ab26275307b551e868647d78b8d7dc8','2895c1461cf7e969.QClebxV47iDyeHFIPZ_wY80OZT92nWjbqzFCjDF4hekjjjOvYTihf0jPKP-Rkjor5BiIeuHD7FOR-6DX_7ClBA');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-58',1,18,'c58',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 58?','',0,0,NULL,'','','','7dd2431650f65cfee5d408f440ef4f85d1fd5a02c5be820c6998a72bf8fde684','785f1316c68ff9f00ba3ad042afc70672457edc3ed9739d9cf2d9ad637e59106','2895c1461cf7e969.mVkfrPS2OYiQF-BBzTa9ENBh6ZzfLDWWdMGVJQMfh424QF3jCj9NMkaMbbB-469E5HXJCShBlkJQoKZzv5liAw');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-59',1,21,'c59',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 59?','',0,0,NULL,'','','','5d100ed36bf153b3bec3bd04c1ceb996266656511fb47005530e6c78fc3b71db','2aa04a1767fbb4f2a23601244beab5dc12c33470fcf22af718345bbe416d9f1c','2895c1461cf7e969.Qcu1-hf6Af6e37GGzBVNwyo45Bu6tioobtLn2UmPHfg6HrZna9W2UV0G4YbQIKp27E4nzZQq1LCNhyYIXxVOCg');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-6',1,57,'c6',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 6?','',0,0,NULL,'','','','6db53c9d5a2ca72a85ddf3a681c0d9567899f4c48632a2e9b0beeba0d6938485','80ced323e5e5654a108b476caae9d69d9e3effa2377f75862176e8f1ed5a778a','2895c1461cf7e969.2SFMftQMkmBKoKbU8biFb_4s7--hUyvW9VJdqBq_WpdD-cE6zFkTSPdLC2ws1yNQiBbLQp5SyGwuROs66ianCw');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-7',1,3,'c7',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 7?','',0,0,NULL,'','','','f28d5b0d6f8be0da8446dabe79044cb9ed0ffa3150a003936155409fe778b885','78b015e24b96382aa11042056fc946182694d6e1ded43fae60b2833dfc9e2051','2895c1461cf7e969.JeNipNdxqqcErt10JzrbuyLyaYj-0nfVy3Pqu7PhiytH1gxL9EJzOQxLCNJb_Or0qf2r_dHKrtxnlaXfn8zyBg');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-8',1,41,'c8',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 8?','',0,0,NULL,'','','','7ed6a8377b92b49472195f1201af304341daf4abb3643f837eafb38066111f6d','127689344ba9708933cb1286918b48daf63991a3068df4a53e81690d07b01731','2895c1461cf7e969.mxAdNvuZiWouCQJyeW3IvGhB8wki073V5uAYnsJP-kkDUDvqr1mzasQl-NQtRLC9V_g1qPv1MvUjGEkTDqhpAg');
INSERT INTO "sample" VALUES('run_0000000000000008','colour-9',1,6,'c9',1.0,1.0,3,1,5.0e-06,0.0,NULL,'','better','Colour number 9?','',0,0,NULL,'','','','95144b44f2a5ff5aa796af152bc61f599db54b2d1b7ecbc5c593ed4aeb47ba13','dfcad7d66b7af93af0b0cc4f0dfbdb47d037bd4db43b2c92a3f0e5c12b794724','2895c1461cf7e969.7yrcBoXLjQosCsLLokNLnuTkSKbQFS8wz_RW7ptf0wMdTuNDI8ci_Fn8atznTxYbeiAWUAXXWBDG8MxBYQGTBA');
CREATE TABLE served_model (
	target TEXT NOT NULL, 
	model TEXT NOT NULL, 
	build TEXT NOT NULL, 
	first_at INTEGER NOT NULL, 
	last_at INTEGER NOT NULL, 
	CONSTRAINT pk_served_model PRIMARY KEY (target, model, build), 
	CONSTRAINT ck_served_model_in_order CHECK (first_at <= last_at)
)
 WITHOUT ROWID,
 STRICT

;
INSERT INTO "served_model" VALUES('t_3f57b7cceb17a6309e1049c0','better','',1767225600000000,1767225600000000);
INSERT INTO "served_model" VALUES('t_5701b1ba30b121bc0bebea9b','base','',1767225600000000,1767225600000000);
CREATE TABLE shadow (
	id TEXT NOT NULL, 
	route TEXT NOT NULL, 
	incumbent TEXT NOT NULL, 
	candidate TEXT NOT NULL, 
	data_class TEXT NOT NULL, 
	share_bps INTEGER NOT NULL, 
	at_once INTEGER NOT NULL, 
	requests_per_day INTEGER NOT NULL, 
	usd_per_day REAL, 
	usd_in_all REAL, 
	proposal TEXT, 
	reason TEXT NOT NULL, 
	started_by TEXT NOT NULL, 
	started_at INTEGER NOT NULL, 
	expires_at INTEGER NOT NULL, 
	ended_at INTEGER, 
	ended_by TEXT, 
	ended_because TEXT, 
	signature TEXT, 
	CONSTRAINT pk_shadow PRIMARY KEY (id), 
	CONSTRAINT ck_shadow_reason_not_blank CHECK (trim(reason) <> ''), 
	CONSTRAINT ck_shadow_ended_by_whom CHECK ((ended_at IS NULL) = (ended_by IS NULL)), 
	CONSTRAINT ck_shadow_at_once_range CHECK (at_once BETWEEN 1 AND 64), 
	CONSTRAINT ck_shadow_expires_later CHECK (expires_at > started_at), 
	CONSTRAINT ck_shadow_another_target CHECK (incumbent <> candidate), 
	CONSTRAINT ck_shadow_requests_per_day_least CHECK (requests_per_day >= 1), 
	CONSTRAINT ck_shadow_share_bps_range CHECK (share_bps BETWEEN 1 AND 10000), 
	CONSTRAINT ck_shadow_usd_in_all_amount CHECK (usd_in_all >= 0 AND usd_in_all < 1e15), 
	CONSTRAINT ck_shadow_usd_per_day_amount CHECK (usd_per_day >= 0 AND usd_per_day < 1e15), 
	CONSTRAINT fk_shadow_candidate FOREIGN KEY(candidate) REFERENCES target (id), 
	CONSTRAINT fk_shadow_incumbent FOREIGN KEY(incumbent) REFERENCES target (id), 
	CONSTRAINT fk_shadow_proposal FOREIGN KEY(proposal) REFERENCES proposal (id)
)
 WITHOUT ROWID,
 STRICT

;
INSERT INTO "shadow" VALUES('sh_1','chat','t_5701b1ba30b121bc0bebea9b','t_3f57b7cceb17a6309e1049c0','',100,4,1000,1.0,NULL,NULL,'to see','ada',1767225602000000,1775001602000000,1767225602000000,'swapgate','the candidate has its canary now, and answers users','2895c1461cf7e969.z7BzGlGIpZMSpfLxhXkPxHqFsnlvYu-59DgTgryfa9fRwv0xLfajVxvxcveQ6mQdmy6I1JcVi-HOoukHKySwDg');
CREATE TABLE shadow_tally (
	shadow TEXT NOT NULL, 
	day TEXT NOT NULL, 
	worker TEXT NOT NULL, 
	counts TEXT NOT NULL, 
	sums TEXT NOT NULL, 
	CONSTRAINT pk_shadow_tally PRIMARY KEY (shadow, day, worker), 
	CONSTRAINT fk_shadow_tally_shadow FOREIGN KEY(shadow) REFERENCES shadow (id)
)
 WITHOUT ROWID,
 STRICT

;
INSERT INTO "shadow_tally" VALUES('sh_1','2026-11-20','w-1','{"mirrored":2,"pairs":1}','{"similarity":0.5}');
CREATE TABLE sign_in (
	provider TEXT NOT NULL, 
	id TEXT NOT NULL, 
	ciphertext TEXT NOT NULL, 
	signed_in_at INTEGER NOT NULL, 
	signed_in_by TEXT NOT NULL, 
	renewed_at INTEGER NOT NULL, 
	account_due INTEGER, 
	access_due INTEGER, 
	access_ends INTEGER, 
	attempts INTEGER NOT NULL, 
	retry_at INTEGER, 
	refused TEXT NOT NULL, 
	CONSTRAINT pk_sign_in PRIMARY KEY (provider), 
	CONSTRAINT ck_sign_in_ciphertext_not_blank CHECK (trim(ciphertext) <> ''), 
	CONSTRAINT fk_sign_in_provider FOREIGN KEY(provider) REFERENCES provider (name)
)
 WITHOUT ROWID,
 STRICT

;
INSERT INTO "sign_in" VALUES('sim','si-1','c1',1795167015123456,'ada',1795167015123456,1796376615123456,NULL,NULL,0,NULL,'');
CREATE TABLE suite (
	project TEXT DEFAULT 'default' NOT NULL, 
	digest TEXT NOT NULL, 
	name TEXT NOT NULL, 
	version TEXT NOT NULL, 
	data_sha256 TEXT NOT NULL, 
	scorer TEXT NOT NULL, 
	template TEXT NOT NULL, 
	items INTEGER NOT NULL, 
	created_at INTEGER NOT NULL, 
	texts TEXT DEFAULT '' NOT NULL, 
	signature TEXT, 
	CONSTRAINT pk_suite PRIMARY KEY (project, digest), 
	CONSTRAINT ck_suite_items_least CHECK (items >= 0)
)
 WITHOUT ROWID,
 STRICT

;
INSERT INTO "suite" VALUES('default','d1910473d570a6a6af52db4fcc1d2d34eefc0be8e54efeb82300928c8c1b8181','colours','1','9f4bcd54c26efb1b3da21fa79b2082289f5328c9b215f58535b866fd05a6fd65','exact@6148d46d645b/d8eb3904','9a827d6720474b8a',60,1767225600000000,'BeRA9z8JWrPSIg75345ZFRND6xUVPA/k5CYp3eQpKcQT3w4vpAi43jEiBC2FNWR8xJo2eT/A4jdCjWbIOpUsfsZAxTDvE0MYpy4YRT/hdqxNCbrCK01+S/oaUE1PZ6ZSRXchtVVxOxRBYON0DsdkINK5cGZGqmR1auvpt1hrAIZhCnEvEw9Rcoe7BNx/soGG3YJsGqoBh9a6+1GRloiLlZQNW6E7lWZhZLqbklAnCqWl4lUMpff61pyrnmUP5q/GLejdtdEjOYq4Sjcm1Lkv3o7IvIPAtB++SSgkkb6q5sbVxsD9KtfHBO2IH9EfizGB04WeBK3WJU7gsNgq9O5A2OGtPF3bCr/JWt5J3ZFi4uhJ14rkk/S4LuXaoGBV8TPisyfxwTDh0/sjIZPT','2895c1461cf7e969.rXaVeK0jmyasZ8l_nhPyI7d3UsbOvEhlSeq6AUNIZHlfztrX2g8F0XhgBcMfE60aCywUqrwYCELKbiKSekPRCQ');
CREATE TABLE switch (
	id TEXT NOT NULL, 
	route TEXT, 
	kind TEXT NOT NULL, 
	name TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	actor TEXT NOT NULL, 
	created_at INTEGER NOT NULL, 
	expires_at INTEGER, 
	source TEXT NOT NULL, 
	lifted_at INTEGER, 
	lifted_by TEXT, 
	signature TEXT, 
	CONSTRAINT pk_switch PRIMARY KEY (id), 
	CONSTRAINT ck_switch_kind_known CHECK (kind IN ('provider', 'target')), 
	CONSTRAINT ck_switch_source_known CHECK (source IN ('cli', 'rest')), 
	CONSTRAINT ck_switch_reason_not_blank CHECK (trim(reason) <> ''), 
	CONSTRAINT ck_switch_lifted_by_whom CHECK ((lifted_at IS NULL) = (lifted_by IS NULL))
)
 WITHOUT ROWID,
 STRICT

;
INSERT INTO "switch" VALUES('sw_0000000000000005',NULL,'provider','sim','an outage','swapgate',1767225600000000,1767229200000000,'cli',NULL,NULL,'2895c1461cf7e969.lGHibwLKMniPLwvy-n7anb00ggQDTgUfGkJCm55FkJ5Q3v6zujYpfKSrxpMb0qUH_jdSVqFyeA5vXhJJUZSRCw');
CREATE TABLE target (
	id TEXT NOT NULL, 
	provider TEXT NOT NULL, 
	model TEXT NOT NULL, 
	parameters TEXT NOT NULL, 
	request_patch TEXT NOT NULL, 
	signature TEXT, 
	CONSTRAINT pk_target PRIMARY KEY (id)
)
 WITHOUT ROWID,
 STRICT

;
INSERT INTO "target" VALUES('t_3f57b7cceb17a6309e1049c0','sim','better','{}','{"parameters":{},"prompt_addendum":"","response_format":null}','2895c1461cf7e969.FXRG1I_Z05iR_vJw6VuMMPbVt8uGTrpvxBU3dra-rA6tXHRIZqUeHy810K2r6W2YX6RzD9KFOFa8fIoUPKI8BA');
INSERT INTO "target" VALUES('t_5701b1ba30b121bc0bebea9b','sim','base','{}','{"parameters":{},"prompt_addendum":"","response_format":null}','2895c1461cf7e969.l2rBmjykPnoGzN0bTJaUWUJPEOJ9HqrdDNaAbYJsaIIctLPnv3tFVin6T1fSBfSjy3uIyFFRrRMOiGkzG2WlDw');
INSERT INTO "target" VALUES('t_b19c8270b656f4d73fb1a91a','sim','good','{}','{"parameters":{},"prompt_addendum":"","response_format":null}','2895c1461cf7e969.qydccWtNjK0w0Bj4SDPixBjjmZtxY2eWEGqChiwgTT9yHsqVHs3-z7P5zPvUFGKJ2J5HdDOOTWl_ChUFs53UDA');
CREATE TABLE traffic (
	route TEXT NOT NULL, 
	minute INTEGER NOT NULL, 
	worker TEXT NOT NULL, 
	arm TEXT NOT NULL, 
	target TEXT NOT NULL, 
	revision INTEGER NOT NULL, 
	requests INTEGER NOT NULL, 
	failed INTEGER NOT NULL, 
	charged INTEGER NOT NULL, 
	streams INTEGER NOT NULL, 
	input_tokens INTEGER NOT NULL, 
	output_tokens INTEGER NOT NULL, 
	cost_usd REAL NOT NULL, 
	latency_ms TEXT NOT NULL, 
	cached_tokens INTEGER DEFAULT '0' NOT NULL, 
	unpriced INTEGER DEFAULT '0' NOT NULL, 
	internal_errors INTEGER DEFAULT '0' NOT NULL, 
	CONSTRAINT pk_traffic PRIMARY KEY (route, minute, worker, arm, target, revision), 
	CONSTRAINT ck_traffic_arm_known CHECK (arm IN ('incumbent', 'canary', 'holdback', 'keep_warm')), 
	CONSTRAINT ck_traffic_cached_tokens_least CHECK (cached_tokens >= 0), 
	CONSTRAINT ck_traffic_charged_least CHECK (charged >= 0), 
	CONSTRAINT ck_traffic_cost_usd_amount CHECK (cost_usd >= 0 AND cost_usd < 1e15), 
	CONSTRAINT ck_traffic_failed_least CHECK (failed >= 0), 
	CONSTRAINT ck_traffic_input_tokens_least CHECK (input_tokens >= 0), 
	CONSTRAINT ck_traffic_internal_errors_least CHECK (internal_errors >= 0), 
	CONSTRAINT ck_traffic_output_tokens_least CHECK (output_tokens >= 0), 
	CONSTRAINT ck_traffic_requests_least CHECK (requests >= 0), 
	CONSTRAINT ck_traffic_streams_least CHECK (streams >= 0), 
	CONSTRAINT ck_traffic_unpriced_least CHECK (unpriced >= 0)
)
 WITHOUT ROWID,
 STRICT

;
INSERT INTO "traffic" VALUES('triage',1795167000000000,'w1','incumbent','t_f33fbb9ccea22aadc07c87ca',1,10,1,2,3,400,50,0.125,'{"-1":1,"100":9}',0,0,0);
CREATE TABLE verdict (
	project TEXT DEFAULT 'default' NOT NULL, 
	id TEXT NOT NULL, 
	proposal TEXT NOT NULL, 
	route TEXT NOT NULL, 
	incumbent TEXT NOT NULL, 
	candidate TEXT NOT NULL, 
	outcome TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	suites TEXT NOT NULL, 
	inputs TEXT NOT NULL, 
	decided_at INTEGER NOT NULL, 
	expires_at INTEGER NOT NULL, 
	signature TEXT, 
	CONSTRAINT pk_verdict PRIMARY KEY (id), 
	CONSTRAINT ck_verdict_outcome_known CHECK (outcome IN ('passed', 'failed', 'inconclusive', 'harness_mismatch', 'infra_error')), 
	CONSTRAINT fk_verdict_candidate FOREIGN KEY(candidate) REFERENCES target (id), 
	CONSTRAINT fk_verdict_incumbent FOREIGN KEY(incumbent) REFERENCES target (id), 
	CONSTRAINT fk_verdict_proposal FOREIGN KEY(proposal) REFERENCES proposal (id), 
	CONSTRAINT uq_verdict_proof UNIQUE (id, project, route, incumbent, candidate, outcome)
)
 WITHOUT ROWID,
 STRICT

;
INSERT INTO "verdict" VALUES('default','v_22de2e40f44cbe41ce3691ab','p_0000000000000006','chat','t_5701b1ba30b121bc0bebea9b','t_3f57b7cceb17a6309e1049c0','passed','The candidate is better: +45.0 points (95 % interval +21.6 to +65.8, not adjusted for early stopping) after 20 of 60 items.','[{"ci_high":0.6579146575496577,"ci_low":0.21636852082341185,"ci_method":"tango","claim":"superior","delta":0.45,"details":{"alpha":0.05,"candidate_mean":1.0,"examples":[],"incumbent_mean":0.55,"lenient":null,"lenient_candidate_mean":1.0,"lenient_incumbent_mean":0.55,"log_e_max":5.036542091418804,"look":1,"mcnemar_exact":0.00390625,"mcnemar_mid_p":0.001953125,"more_items":1,"near_ties":11,"p_t":0.0004326371491735714,"rule":null,"rules":{},"sd":0.5104177855340405,"spend":"first_full","t":3.946761086881631,"unanswered":0,"unscored_candidate":0,"unscored_incumbent":0},"flags":[],"how":"early","log_e":5.036542091418804,"log_e_bad":-1.0906674509806122,"losses":0,"margin":0.05,"n_max":60,"n_used":20,"outcome":"passed","p_final":0.0013498980316300933,"reason":"The candidate is better: +45.0 points (95 % interval +21.6 to +65.8, not adjusted for early stopping) after 20 of 60 items.","role":"primary","suite":"colours","ties":11,"wins":9}]','{"blocked":{},"decided_at":"2026-01-01T00:00:01+00:00","expires_at":"2026-01-15T00:00:01+00:00","marks":{"colours":{}},"pairs":{"colours":[["colour-41",1.0,1.0,1.0,1.0],["colour-4",0.0,1.0,0.0,1.0],["colour-16",0.0,1.0,0.0,1.0],["colour-7",0.0,1.0,0.0,1.0],["colour-43",0.0,1.0,0.0,1.0],["colour-39",1.0,1.0,1.0,1.0],["colour-9",0.0,1.0,0.0,1.0],["colour-34",1.0,1.0,1.0,1.0],["colour-42",1.0,1.0,1.0,1.0],["colour-40",0.0,1.0,0.0,1.0],["colour-32",1.0,1.0,1.0,1.0],["colour-33",0.0,1.0,0.0,1.0],["colour-46",1.0,1.0,1.0,1.0],["colour-30",1.0,1.0,1.0,1.0],["colour-51",1.0,1.0,1.0,1.0],["colour-13",1.0,1.0,1.0,1.0],["colour-0",1.0,1.0,1.0,1.0],["colour-38",0.0,1.0,0.0,1.0],["colour-58",1.0,1.0,1.0,1.0],["colour-2",0.0,1.0,0.0,1.0]]},"plans":[{"alpha":0.05,"claim":"superior","epochs":1,"look":1,"margin":0.05,"n_max":60,"order_seed":3515942003,"role":"primary","served_pin":"model","spend":"first_full","suite":"colours","suite_digest":"d1910473d570a6a6af52db4fcc1d2d34eefc0be8e54efeb82300928c8c1b8181"}],"rules":1,"runs":{"colours":{"candidate":"run_0000000000000008","incumbent":"run_0000000000000007"}},"served":{"colours":{"candidate":[["better",""]],"incumbent":[["base",""]],"judge":[]}},"stopped":{}}',1767225601000000,1768435201000000,'2895c1461cf7e969.XyAIRXxmwHoQ-HQSSLNvFb-VVaE9JsGqNYdFN-l4iCRXIJYz2HdA7Ezpn2JeIf0YFzRGbTJ76NstTEfA8c6qDw');
CREATE TABLE waiver (
	project TEXT DEFAULT 'default' NOT NULL, 
	id TEXT NOT NULL, 
	route TEXT NOT NULL, 
	target TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	author TEXT NOT NULL, 
	expires_at INTEGER NOT NULL, 
	signature TEXT, 
	CONSTRAINT pk_waiver PRIMARY KEY (id), 
	CONSTRAINT ck_waiver_author_not_blank CHECK (trim(author) <> ''), 
	CONSTRAINT ck_waiver_reason_not_blank CHECK (trim(reason) <> ''), 
	CONSTRAINT fk_waiver_target FOREIGN KEY(target) REFERENCES target (id), 
	CONSTRAINT uq_waiver_proof UNIQUE (id, project, route, target)
)
 WITHOUT ROWID,
 STRICT

;
INSERT INTO "waiver" VALUES('default','w_0000000000000001','chat','t_b19c8270b656f4d73fb1a91a','a test','swapgate',1767312000000000,'2895c1461cf7e969.KdlI4wSWaJLBd5QkCue3Bk5MYrdf82PDbwtKHA0iI-Uem_b1OU0hdqH7PVlSy0a8GZPj1HQK1bsTVKLF0fjhBw');
CREATE INDEX ix_eval_run_created_at ON eval_run (created_at, id);
CREATE INDEX ix_eval_run_fingerprint ON eval_run (fingerprint, created_at);
CREATE INDEX ix_eval_run_lease_owner ON eval_run (lease_owner);
CREATE INDEX ix_eval_run_state ON eval_run (state);
CREATE INDEX ix_eval_run_target ON eval_run (target, created_at);
CREATE INDEX ix_sample_run_position ON sample (run, position, epoch);
CREATE INDEX ix_key_spend_day ON key_spend (day);
CREATE INDEX ix_proposal_candidate ON proposal (candidate);
CREATE INDEX ix_proposal_created_at ON proposal (created_at, id);
CREATE INDEX ix_proposal_phase ON proposal (phase);
CREATE INDEX ix_proposal_route ON proposal (route, created_at);
CREATE UNIQUE INDEX ux_proposal_open_route ON proposal (project, route) WHERE phase IN ('proposed', 'evaluating', 'awaiting_approval', 'shadow', 'canary');
CREATE INDEX ix_verdict_proposal ON verdict (proposal);
CREATE INDEX ix_verdict_route ON verdict (route, decided_at);
CREATE INDEX ix_approval_proposal ON approval (proposal, at);
CREATE INDEX ix_approval_verdict ON approval (verdict);
CREATE INDEX ix_rollout_proposal ON rollout (proposal);
CREATE INDEX ix_rollout_route ON rollout (route, started_at);
CREATE INDEX ix_rollout_state ON rollout (state);
CREATE UNIQUE INDEX ux_rollout_live_route ON rollout (project, route) WHERE state IN ('waiting', 'measuring', 'paused');
CREATE UNIQUE INDEX uq_shadow_live ON shadow (route) WHERE ended_at IS NULL;
CREATE UNIQUE INDEX uq_drift_watch_open ON drift_watch (target, suite) WHERE closed_at IS NULL;
CREATE INDEX ix_drift_check_started_at ON drift_check (started_at);
CREATE UNIQUE INDEX uq_drift_check_running ON drift_check (watch) WHERE state = 'running';
CREATE INDEX ix_traffic_minute ON traffic (minute);
CREATE INDEX ix_captured_at ON captured (at, id);
CREATE INDEX ix_captured_expires_at ON captured (expires_at);
CREATE INDEX ix_captured_route ON captured (route, at);
CREATE INDEX ix_captured_user_hash ON captured (user_hash);
CREATE INDEX ix_alert_key ON alert ("key", first_seen);
CREATE INDEX ix_alert_last_seen ON alert (last_seen);
CREATE UNIQUE INDEX uq_alert_open ON alert ("key") WHERE resolved_at IS NULL;
CREATE INDEX ix_delivery_next_attempt_at ON delivery (next_attempt_at);
CREATE INDEX ix_failover_at ON failover (at);
CREATE INDEX ix_failover_user_hash ON failover (user_hash, at);
CREATE INDEX ix_audit_event_subject ON audit_event (subject, number);
CREATE TRIGGER route_version_guard BEFORE INSERT ON route_version FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'version_taken: such a row is there') WHERE EXISTS (SELECT 1 FROM route_version t WHERE t.project = NEW.project AND t.route = NEW.route AND t.version = NEW.version); SELECT RAISE(ABORT, 'revision_follows: revisions rise by one, from above a floor') WHERE NEW.revision <> 1 + (SELECT CASE WHEN m.revision_floor > n.newest THEN m.revision_floor ELSE n.newest END FROM meta m CROSS JOIN (SELECT COALESCE(MAX(v.revision), 0) AS newest FROM route_version v) n); SELECT RAISE(ABORT, 'baseline_evidence: a first version needs baseline evidence') WHERE NEW.version = 1 AND NOT EXISTS (SELECT 1 FROM evidence e WHERE e.project = NEW.project AND e.id = NEW.incumbent_evidence AND e.kind = 'baseline'); SELECT RAISE(ABORT, 'incumbent_evidence: an incumbent that stays keeps its evidence') WHERE NEW.kind IN ('canary', 'weight', 'abort', 'settings') AND NOT EXISTS (SELECT 1 FROM route_version p WHERE p.project = NEW.project AND p.route = NEW.route AND p.version = NEW.version - 1 AND p.incumbent = NEW.incumbent AND p.incumbent_evidence = NEW.incumbent_evidence); SELECT RAISE(ABORT, 'proof_is_evidence: a promoted target''s evidence is its verdict') WHERE NEW.kind = 'promotion' AND NOT EXISTS (SELECT 1 FROM evidence e WHERE e.project = NEW.project AND e.id = NEW.incumbent_evidence AND e.verdict_id = NEW.verdict_id); SELECT RAISE(ABORT, 'proof_is_evidence: a canary''s evidence is its verdict') WHERE NEW.kind = 'canary' AND NOT EXISTS (SELECT 1 FROM evidence e WHERE e.project = NEW.project AND e.id = NEW.canary_evidence AND e.verdict_id = NEW.verdict_id); SELECT RAISE(ABORT, 'one_canary: a canary starts where there is none') WHERE NEW.kind = 'canary' AND NOT EXISTS (SELECT 1 FROM route_version p WHERE p.project = NEW.project AND p.route = NEW.route AND p.version = NEW.version - 1 AND p.canary IS NULL); SELECT RAISE(ABORT, 'weight_rises: only the weight of the same canary rises') WHERE NEW.kind = 'weight' AND NOT EXISTS (SELECT 1 FROM route_version p WHERE p.project = NEW.project AND p.route = NEW.route AND p.version = NEW.version - 1 AND COALESCE(p.canary, '') = COALESCE(NEW.canary, '') AND COALESCE(p.canary_evidence, '') = COALESCE(NEW.canary_evidence, '') AND COALESCE(p.salt, '') = COALESCE(NEW.salt, '') AND COALESCE(p.rollout, '') = COALESCE(NEW.rollout, '') AND COALESCE(p.unit_rule, '') = COALESCE(NEW.unit_rule, '') AND p.weight_bps < NEW.weight_bps); SELECT RAISE(ABORT, 'canary_stays: settings leave the canary alone') WHERE NEW.kind = 'settings' AND NOT EXISTS (SELECT 1 FROM route_version p WHERE p.project = NEW.project AND p.route = NEW.route AND p.version = NEW.version - 1 AND COALESCE(p.canary, '') = COALESCE(NEW.canary, '') AND COALESCE(p.canary_evidence, '') = COALESCE(NEW.canary_evidence, '') AND COALESCE(p.salt, '') = COALESCE(NEW.salt, '') AND COALESCE(p.rollout, '') = COALESCE(NEW.rollout, '') AND COALESCE(p.unit_rule, '') = COALESCE(NEW.unit_rule, '') AND p.weight_bps = NEW.weight_bps); SELECT RAISE(ABORT, 'nothing_to_abort: there is no canary') WHERE NEW.kind = 'abort' AND NOT EXISTS (SELECT 1 FROM route_version p WHERE p.project = NEW.project AND p.route = NEW.route AND p.version = NEW.version - 1 AND p.canary IS NOT NULL); SELECT RAISE(ABORT, 'never_incumbent: only a former incumbent of this route is restored') WHERE NEW.kind = 'restore' AND NOT EXISTS (SELECT 1 FROM route_version f WHERE f.project = NEW.project AND f.route = NEW.route AND f.version < NEW.version AND f.incumbent = NEW.incumbent AND f.incumbent_evidence = NEW.incumbent_evidence); END;
CREATE TRIGGER route_version_links BEFORE INSERT ON route_version FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'chain_stays: only a change of settings changes the chain') WHERE NEW.kind NOT IN ('baseline', 'settings') AND ((SELECT count(*) FROM route_fallback n WHERE n.project = NEW.project AND n.route = NEW.route AND n.version = NEW.version) <> (SELECT count(*) FROM route_fallback o WHERE o.project = NEW.project AND o.route = NEW.route AND o.version = NEW.version - 1) OR EXISTS (SELECT 1 FROM route_fallback n WHERE n.project = NEW.project AND n.route = NEW.route AND n.version = NEW.version AND NOT EXISTS (SELECT 1 FROM route_fallback o WHERE o.project = NEW.project AND o.route = NEW.route AND o.version = NEW.version - 1 AND o.position = n.position AND o.target = n.target AND o.evidence = n.evidence))); SELECT RAISE(ABORT, 'waiver_expired: a waiver of the chain has expired') WHERE NEW.kind IN ('baseline', 'settings') AND EXISTS (SELECT 1 FROM route_fallback n JOIN evidence e ON e.project = n.project AND e.id = n.evidence JOIN waiver w ON w.id = e.waiver_id WHERE n.project = NEW.project AND n.route = NEW.route AND n.version = NEW.version AND w.expires_at <= NEW.at); END;
CREATE TRIGGER route_version_bake_guard BEFORE INSERT ON route_version FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'holdback_whole: a holdback has a share and a rollout') WHERE (NEW.holdback IS NULL) <> (NEW.holdback_plan IS NULL); SELECT RAISE(ABORT, 'holdback_is_the_last: a promotion holds back the incumbent before it') WHERE NEW.kind = 'promotion' AND NEW.holdback IS NOT NULL AND NEW.holdback <> NEW.prev_incumbent; SELECT RAISE(ABORT, 'holdback_stays: only a promotion holds a target back') WHERE NEW.kind <> 'promotion' AND NEW.holdback IS NOT NULL AND NOT (NEW.kind = 'settings' AND EXISTS (SELECT 1 FROM route_version p WHERE p.project = NEW.project AND p.route = NEW.route AND p.version = NEW.version - 1 AND p.holdback = NEW.holdback AND p.holdback_plan = NEW.holdback_plan)); SELECT RAISE(ABORT, 'bake_first: the last promotion still bakes') WHERE NEW.kind = 'canary' AND EXISTS (SELECT 1 FROM route_version p WHERE p.project = NEW.project AND p.route = NEW.route AND p.version = NEW.version - 1 AND p.holdback IS NOT NULL); SELECT RAISE(ABORT, 'verdict_used: a rollout with this verdict was rolled back') WHERE NEW.kind IN ('canary', 'promotion') AND EXISTS (SELECT 1 FROM rollout r WHERE r.verdict = NEW.verdict_id AND r.state = 'rolled_back'); END;
CREATE TRIGGER route_version_proof_guard BEFORE INSERT ON route_version FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'evidence_missing: no such evidence of this route and incumbent') WHERE NOT EXISTS (SELECT 1 FROM evidence e WHERE e.id = NEW.incumbent_evidence AND e.project = NEW.project AND e.route = NEW.route AND e.target = NEW.incumbent); SELECT RAISE(ABORT, 'verdict_missing: no passed verdict of this route, incumbent and candidate') WHERE NEW.kind IN ('canary', 'promotion') AND NOT EXISTS (SELECT 1 FROM verdict v WHERE v.id = NEW.verdict_id AND v.project = NEW.project AND v.route = NEW.route AND v.incumbent = NEW.prev_incumbent AND v.candidate = NEW.verdict_candidate AND v.outcome = 'passed'); SELECT RAISE(ABORT, 'verdict_expired: the verdict has expired, or is not decided yet') WHERE NEW.kind IN ('canary', 'promotion') AND EXISTS (SELECT 1 FROM verdict v WHERE v.id = NEW.verdict_id AND (NEW.at < v.decided_at OR NEW.at >= v.expires_at)); SELECT RAISE(ABORT, 'time_follows: it is earlier than the version before it') WHERE NEW.kind IN ('canary', 'promotion') AND EXISTS (SELECT 1 FROM route_version p WHERE p.project = NEW.project AND p.route = NEW.route AND p.version = NEW.version - 1 AND p.at > NEW.at); SELECT RAISE(ABORT, 'verdict_used: a verdict is proof of one canary and one promotion') WHERE NEW.kind IN ('canary', 'promotion') AND (EXISTS (SELECT 1 FROM route_version o WHERE o.project = NEW.project AND o.route = NEW.route AND o.kind = NEW.kind AND o.verdict_id = NEW.verdict_id) OR EXISTS (SELECT 1 FROM rollout r WHERE r.verdict = NEW.verdict_id AND r.state = 'rolled_back')); SELECT RAISE(ABORT, 'approval_missing: the proposal''s policy asks for an approval of this verdict') WHERE NEW.kind IN ('canary', 'promotion') AND EXISTS (SELECT 1 FROM verdict v JOIN proposal q ON q.id = v.proposal WHERE v.id = NEW.verdict_id AND (COALESCE(json_extract(q.policy, '$.promotion'), '') <> 'automatic' OR q.widened <> '{}') AND NOT EXISTS (SELECT 1 FROM approval a WHERE a.verdict = v.id AND a.proposal = q.id AND a.kind = 'canary')); SELECT RAISE(ABORT, 'first_step: a canary opens with its rollout, at its policy''s first step') WHERE NEW.kind = 'canary' AND NOT EXISTS (SELECT 1 FROM rollout r JOIN proposal q ON q.id = r.proposal WHERE r.id = NEW.rollout AND r.verdict = NEW.verdict_id AND r.project = NEW.project AND r.route = NEW.route AND r.incumbent = NEW.incumbent AND r.candidate = NEW.canary AND r.salt = NEW.salt AND r.state = 'waiting' AND r.step = 0 AND NEW.weight_bps = json_extract(q.policy, '$.canary.steps[' || (0) || '].weight_bps')); SELECT RAISE(ABORT, 'next_step: a canary''s weight rises to its policy''s next step') WHERE NEW.kind = 'weight' AND NOT EXISTS (SELECT 1 FROM rollout r JOIN proposal q ON q.id = r.proposal WHERE r.id = NEW.rollout AND r.state IN ('waiting', 'measuring', 'paused') AND NEW.weight_bps = json_extract(q.policy, '$.canary.steps[' || (r.step + 1) || '].weight_bps')); SELECT RAISE(ABORT, 'last_step: a promotion follows its canary''s last step, or a person''s word') WHERE NEW.kind = 'promotion' AND NOT EXISTS (SELECT 1 FROM rollout r JOIN proposal q ON q.id = r.proposal JOIN route_version p ON p.rollout = r.id WHERE p.project = NEW.project AND p.route = NEW.route AND p.version = NEW.version - 1 AND p.canary = NEW.incumbent AND r.verdict = NEW.verdict_id AND r.state IN ('waiting', 'measuring', 'paused') AND ((r.state = 'measuring' AND r.step = json_array_length(q.policy, '$.canary.steps') - 1 AND p.weight_bps = json_extract(q.policy, '$.canary.steps[' || (r.step) || '].weight_bps')) OR EXISTS (SELECT 1 FROM approval a WHERE a.verdict = r.verdict AND a.proposal = q.id AND a.kind = 'promotion'))); END;
CREATE TRIGGER route_fallback_guard BEFORE INSERT ON route_fallback FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'sealed: the version is written, and its chain with it') WHERE EXISTS (SELECT 1 FROM route_version v WHERE v.project = NEW.project AND v.route = NEW.route AND v.version = NEW.version); SELECT RAISE(ABORT, 'version_taken: such a row is there') WHERE EXISTS (SELECT 1 FROM route_fallback t WHERE t.project = NEW.project AND t.route = NEW.route AND t.version = NEW.version AND t.position = NEW.position); SELECT RAISE(ABORT, 'evidence_missing: no such evidence of this route and target') WHERE NOT EXISTS (SELECT 1 FROM evidence e WHERE e.id = NEW.evidence AND e.project = NEW.project AND e.route = NEW.route AND e.target = NEW.target); SELECT RAISE(ABORT, 'baseline_evidence: a baseline is what the first version served') WHERE NEW.version > 1 AND EXISTS (SELECT 1 FROM evidence e WHERE e.project = NEW.project AND e.id = NEW.evidence AND e.kind = 'baseline') AND NOT EXISTS (SELECT 1 FROM route_version v WHERE v.project = NEW.project AND v.route = NEW.route AND v.version = 1 AND v.incumbent_evidence = NEW.evidence) AND NOT EXISTS (SELECT 1 FROM route_fallback f WHERE f.project = NEW.project AND f.route = NEW.route AND f.version = 1 AND f.evidence = NEW.evidence); END;
CREATE TRIGGER evidence_guard BEFORE INSERT ON evidence FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'version_taken: such a row is there') WHERE EXISTS (SELECT 1 FROM evidence t WHERE t.project = NEW.project AND t.id = NEW.id); SELECT RAISE(ABORT, 'baseline_late: the route has versions; a new target needs a verdict or a waiver') WHERE NEW.kind = 'baseline' AND EXISTS (SELECT 1 FROM route_version v WHERE v.project = NEW.project AND v.route = NEW.route); SELECT RAISE(ABORT, 'proof_missing: no such verdict or waiver of this route and target') WHERE (NEW.kind = 'verdict' AND NOT EXISTS (SELECT 1 FROM verdict v WHERE v.id = NEW.verdict_id AND v.project = NEW.project AND v.route = NEW.route AND v.incumbent = NEW.verdict_incumbent AND v.candidate = NEW.target AND v.outcome = 'passed')) OR (NEW.kind = 'waiver' AND NOT EXISTS (SELECT 1 FROM waiver w WHERE w.id = NEW.waiver_id AND w.project = NEW.project AND w.route = NEW.route AND w.target = NEW.target)); END;
CREATE TRIGGER evidence_approval_guard BEFORE INSERT ON evidence FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'approval_missing: nobody approved the verdict, and its proposal asks for that') WHERE NEW.kind = 'verdict' AND EXISTS (SELECT 1 FROM verdict v JOIN proposal q ON q.id = v.proposal WHERE v.id = NEW.verdict_id AND (COALESCE(json_extract(q.policy, '$.promotion'), '') <> 'automatic' OR q.widened <> '{}') AND NOT EXISTS (SELECT 1 FROM approval a WHERE a.verdict = v.id AND a.proposal = q.id AND a.kind = 'canary')); END;
CREATE TRIGGER waiver_guard BEFORE INSERT ON waiver FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'version_taken: such a row is there') WHERE EXISTS (SELECT 1 FROM waiver t WHERE t.id = NEW.id); END;
CREATE TRIGGER proposal_guard BEFORE INSERT ON proposal FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'version_taken: such a row is there') WHERE EXISTS (SELECT 1 FROM proposal t WHERE t.id = NEW.id); SELECT RAISE(ABORT, 'route_busy: the route has a proposal under way') WHERE NEW.phase IN ('proposed', 'evaluating', 'awaiting_approval', 'shadow', 'canary') AND EXISTS (SELECT 1 FROM proposal t WHERE t.project = NEW.project AND t.route = NEW.route AND t.id <> NEW.id AND t.phase IN ('proposed', 'evaluating', 'awaiting_approval', 'shadow', 'canary')); END;
CREATE TRIGGER proposal_no_rewrite BEFORE UPDATE ON proposal FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'version_follows: a stored proposal''s version rises by one') WHERE NEW.version <> OLD.version + 1; SELECT RAISE(ABORT, 'registered: what was registered does not change') WHERE NEW.project IS NOT OLD.project OR NEW.id IS NOT OLD.id OR NEW.route IS NOT OLD.route OR NEW.incumbent IS NOT OLD.incumbent OR NEW.candidate IS NOT OLD.candidate OR NEW.claim IS NOT OLD.claim OR NEW.proposer IS NOT OLD.proposer OR NEW.policy IS NOT OLD.policy OR NEW.self_approval IS NOT OLD.self_approval OR NEW.created_at IS NOT OLD.created_at OR (OLD.phase <> 'proposed' AND NEW.plans <> OLD.plans); SELECT RAISE(ABORT, 'route_busy: the route has a proposal under way') WHERE NEW.phase IN ('proposed', 'evaluating', 'awaiting_approval', 'shadow', 'canary') AND EXISTS (SELECT 1 FROM proposal t WHERE t.project = NEW.project AND t.route = NEW.route AND t.id <> NEW.id AND t.phase IN ('proposed', 'evaluating', 'awaiting_approval', 'shadow', 'canary')); END;
CREATE TRIGGER proposal_widened_guard BEFORE UPDATE ON proposal FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'registered: what was registered does not change') WHERE NEW.widened <> OLD.widened; SELECT RAISE(ABORT, 'four_eyes: rules that were widened wait for an approval') WHERE NEW.widened <> '{}' AND NEW.phase IN ('shadow', 'canary', 'promoted') AND NOT EXISTS (SELECT 1 FROM approval a WHERE a.proposal = NEW.id AND a.verdict = NEW.verdict AND a.name <> NEW.proposer AND a.widened = NEW.widened); END;
CREATE TRIGGER proposal_proposer_fixed BEFORE UPDATE ON proposal FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'registered: what was registered does not change') WHERE NEW.proposer_principal IS NOT OLD.proposer_principal OR NEW.proposer_key IS NOT OLD.proposer_key; SELECT RAISE(ABORT, 'four_eyes: rules that were widened wait for another principal') WHERE NEW.widened <> '{}' AND NEW.phase IN ('shadow', 'canary', 'promoted') AND NOT EXISTS (SELECT 1 FROM approval a WHERE a.proposal = NEW.id AND a.verdict = NEW.verdict AND a.principal <> NEW.proposer_principal); END;
CREATE TRIGGER proposal_no_delete BEFORE DELETE ON proposal FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: proposal is never deleted') WHERE 1 = 1; END;
CREATE TRIGGER rollout_guard BEFORE INSERT ON rollout FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'version_taken: such a row is there') WHERE EXISTS (SELECT 1 FROM rollout t WHERE t.id = NEW.id); SELECT RAISE(ABORT, 'route_busy: the route has a rollout under way') WHERE NEW.state IN ('waiting', 'measuring', 'paused') AND EXISTS (SELECT 1 FROM rollout t WHERE t.project = NEW.project AND t.route = NEW.route AND t.id <> NEW.id AND t.state IN ('waiting', 'measuring', 'paused')); END;
CREATE TRIGGER rollout_bake_guard BEFORE INSERT ON rollout FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'verdict_used: a verdict is proof of one rollout') WHERE EXISTS (SELECT 1 FROM rollout r WHERE r.verdict = NEW.verdict); END;
CREATE TRIGGER rollout_no_rewrite BEFORE UPDATE ON rollout FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'version_follows: a stored rollout''s version rises by one') WHERE NEW.version <> OLD.version + 1; SELECT RAISE(ABORT, 'registered: what was registered does not change') WHERE NEW.project IS NOT OLD.project OR NEW.id IS NOT OLD.id OR NEW.proposal IS NOT OLD.proposal OR NEW.route IS NOT OLD.route OR NEW.incumbent IS NOT OLD.incumbent OR NEW.candidate IS NOT OLD.candidate OR NEW.verdict IS NOT OLD.verdict OR NEW.policy IS NOT OLD.policy OR NEW.salt IS NOT OLD.salt OR NEW.started_at IS NOT OLD.started_at; SELECT RAISE(ABORT, 'ended: a rollout does not come back') WHERE (OLD.state = 'waiting' AND NEW.state NOT IN ('waiting', 'measuring', 'paused', 'promoted', 'rolled_back', 'waiting')) OR (OLD.state = 'measuring' AND NEW.state NOT IN ('measuring', 'paused', 'promoted', 'rolled_back', 'waiting')) OR (OLD.state = 'paused' AND NEW.state NOT IN ('paused', 'promoted', 'rolled_back', 'waiting')) OR (OLD.state = 'promoted' AND NEW.state NOT IN ('promoted', 'promoted', 'rolled_back')) OR (OLD.state = 'rolled_back' AND NEW.state NOT IN ('rolled_back')); SELECT RAISE(ABORT, 'next_step: a rollout goes one step on, once the route serves it') WHERE NEW.step <> OLD.step AND (NEW.step <> OLD.step + 1 OR NOT EXISTS (SELECT 1 FROM route_version p JOIN proposal q ON q.id = NEW.proposal WHERE p.project = NEW.project AND p.route = NEW.route AND p.rollout = NEW.id AND p.version = (SELECT MAX(l.version) FROM route_version l WHERE l.project = NEW.project AND l.route = NEW.route) AND p.weight_bps = json_extract(q.policy, '$.canary.steps[' || (NEW.step) || '].weight_bps'))); SELECT RAISE(ABORT, 'route_busy: the route has a rollout under way') WHERE NEW.state IN ('waiting', 'measuring', 'paused') AND EXISTS (SELECT 1 FROM rollout t WHERE t.project = NEW.project AND t.route = NEW.route AND t.id <> NEW.id AND t.state IN ('waiting', 'measuring', 'paused')); END;
CREATE TRIGGER rollout_no_delete BEFORE DELETE ON rollout FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: rollout is never deleted') WHERE 1 = 1; END;
CREATE TRIGGER approval_guard BEFORE INSERT ON approval FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'version_taken: such a row is there') WHERE EXISTS (SELECT 1 FROM approval t WHERE t.id = NEW.id); SELECT RAISE(ABORT, 'approval_of_verdict: the approval names a verdict of another proposal') WHERE NEW.verdict IS NOT NULL AND NOT EXISTS (SELECT 1 FROM verdict v WHERE v.id = NEW.verdict AND v.proposal = NEW.proposal); SELECT RAISE(ABORT, 'four_eyes: who proposed it cannot approve it') WHERE EXISTS (SELECT 1 FROM proposal p WHERE p.id = NEW.proposal AND p.proposer = NEW.name AND NOT p.self_approval); END;
CREATE TRIGGER approval_principals BEFORE INSERT ON approval FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'four_eyes: the principal who proposed it cannot approve it') WHERE EXISTS (SELECT 1 FROM proposal p WHERE p.id = NEW.proposal AND p.proposer_principal = NEW.principal AND NOT p.self_approval); SELECT RAISE(ABORT, 'four_eyes: the key belongs to another principal') WHERE NEW.key IS NOT NULL AND NOT EXISTS (SELECT 1 FROM api_key k WHERE k.id = NEW.key AND k.principal = NEW.principal); END;
CREATE TRIGGER verdict_guard BEFORE INSERT ON verdict FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'version_taken: such a row is there') WHERE EXISTS (SELECT 1 FROM verdict t WHERE t.id = NEW.id); END;
CREATE TRIGGER audit_event_guard BEFORE INSERT ON audit_event FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'audit_gap: audit events are numbered without gaps') WHERE NEW.number <> (SELECT COALESCE(MAX(number), 0) + 1 FROM audit_event); SELECT RAISE(ABORT, 'audit_chain: this event does not follow the last one') WHERE NEW.previous <> COALESCE((SELECT a.mac FROM audit_event a WHERE a.number = NEW.number - 1), '0000000000000000000000000000000000000000000000000000000000000000'); END;
CREATE TRIGGER switch_guard BEFORE INSERT ON switch FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'version_taken: such a row is there') WHERE EXISTS (SELECT 1 FROM switch t WHERE t.id = NEW.id); SELECT RAISE(ABORT, 'switch_thrown: a switch is thrown before it is lifted') WHERE NEW.lifted_at IS NOT NULL; END;
CREATE TRIGGER switch_no_rewrite BEFORE UPDATE ON switch FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: a switch is lifted once') WHERE OLD.lifted_at IS NOT NULL; SELECT RAISE(ABORT, 'append_only: a switch is only ever lifted') WHERE NEW.lifted_at IS NULL; SELECT RAISE(ABORT, 'append_only: what was thrown does not change') WHERE NEW.id IS NOT OLD.id OR NEW.route IS NOT OLD.route OR NEW.kind IS NOT OLD.kind OR NEW.name IS NOT OLD.name OR NEW.reason IS NOT OLD.reason OR NEW.actor IS NOT OLD.actor OR NEW.created_at IS NOT OLD.created_at OR NEW.expires_at IS NOT OLD.expires_at OR NEW.source IS NOT OLD.source; END;
CREATE TRIGGER switch_no_delete BEFORE DELETE ON switch FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: switch is never deleted') WHERE 1 = 1; END;
CREATE TRIGGER shadow_guard BEFORE INSERT ON shadow FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'version_taken: such a row is there') WHERE EXISTS (SELECT 1 FROM shadow t WHERE t.id = NEW.id); SELECT RAISE(ABORT, 'shadow_started: a shadow starts before it ends') WHERE NEW.ended_at IS NOT NULL; SELECT RAISE(ABORT, 'route_busy: the route has a shadow under way') WHERE NEW.ended_at IS NULL AND EXISTS (SELECT 1 FROM shadow t WHERE t.route = NEW.route AND t.id <> NEW.id AND t.ended_at IS NULL); END;
CREATE TRIGGER shadow_no_rewrite BEFORE UPDATE ON shadow FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: a shadow ends once') WHERE OLD.ended_at IS NOT NULL; SELECT RAISE(ABORT, 'append_only: a shadow is only ever ended') WHERE NEW.ended_at IS NULL; SELECT RAISE(ABORT, 'append_only: what was started does not change') WHERE NEW.id IS NOT OLD.id OR NEW.route IS NOT OLD.route OR NEW.incumbent IS NOT OLD.incumbent OR NEW.candidate IS NOT OLD.candidate OR NEW.data_class IS NOT OLD.data_class OR NEW.share_bps IS NOT OLD.share_bps OR NEW.at_once IS NOT OLD.at_once OR NEW.requests_per_day IS NOT OLD.requests_per_day OR NEW.usd_per_day IS NOT OLD.usd_per_day OR NEW.proposal IS NOT OLD.proposal OR NEW.reason IS NOT OLD.reason OR NEW.started_by IS NOT OLD.started_by OR NEW.started_at IS NOT OLD.started_at OR NEW.expires_at IS NOT OLD.expires_at OR NEW.usd_in_all IS NOT OLD.usd_in_all; END;
CREATE TRIGGER shadow_no_delete BEFORE DELETE ON shadow FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: shadow is never deleted') WHERE 1 = 1; END;
CREATE TRIGGER sample_no_update BEFORE UPDATE OF run, item, epoch, position, strict, lenient, input_tokens, output_tokens, cost_usd, duration_s, error, served_model, rule, cached_tokens, judge_calls, judge_cost_usd, served_build, judge_model, judge_build, answer_sha256, prompt_sha256 ON sample FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: what was measured is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER sample_blank_only BEFORE UPDATE OF answer, prompt, error_text ON sample FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: the text of a sample is blanked or stays') WHERE (NEW.answer <> '' AND NEW.answer <> OLD.answer) OR (NEW.prompt <> '' AND NEW.prompt <> OLD.prompt) OR (NEW.error_text <> '' AND NEW.error_text <> OLD.error_text); END;
CREATE TRIGGER sample_no_delete BEFORE DELETE ON sample FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: what was measured is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER principal_guard BEFORE INSERT ON principal FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'version_taken: such a row is there') WHERE EXISTS (SELECT 1 FROM principal t WHERE t.id = NEW.id OR t.folded = NEW.folded); END;
CREATE TRIGGER principal_no_rewrite BEFORE UPDATE ON principal FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'registered: who a principal is does not change') WHERE NEW.id IS NOT OLD.id OR NEW.kind IS NOT OLD.kind OR NEW.name IS NOT OLD.name OR NEW.folded IS NOT OLD.folded OR NEW.created_at IS NOT OLD.created_at OR (OLD.issuer IS NOT NULL AND (NEW.issuer IS NOT OLD.issuer OR NEW.subject IS NOT OLD.subject)); END;
CREATE TRIGGER principal_no_delete BEFORE DELETE ON principal FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: principal is never deleted') WHERE 1 = 1; END;
CREATE TRIGGER api_key_guard BEFORE INSERT ON api_key FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'key_owner: a management key has a principal, a data key none') WHERE (NEW.role IS NULL) <> (NEW.principal IS NULL); END;
CREATE TRIGGER api_key_no_rewrite BEFORE UPDATE ON api_key FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'registered: whose a key is, and who created it, does not change') WHERE NEW.project IS NOT OLD.project OR NEW.id IS NOT OLD.id OR NEW.principal IS NOT OLD.principal OR NEW.created_by IS NOT OLD.created_by OR NEW.created_with IS NOT OLD.created_with OR (NEW.role IS NULL) <> (OLD.role IS NULL); SELECT RAISE(ABORT, 'append_only: a revoked key stays revoked') WHERE OLD.revoked_at IS NOT NULL AND (NEW.revoked_at IS NOT OLD.revoked_at); END;
CREATE TRIGGER meta_guard BEFORE INSERT ON meta FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'version_taken: such a row is there') WHERE EXISTS (SELECT 1 FROM meta t WHERE t.id = NEW.id); END;
CREATE TRIGGER meta_no_return BEFORE UPDATE ON meta FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'never_back: the database''s place in its history only rises') WHERE NEW.changes < OLD.changes OR NEW.epoch < OLD.epoch OR NEW.revision_floor < OLD.revision_floor OR NEW.id IS NOT OLD.id OR NEW.installation IS NOT OLD.installation; END;
CREATE TRIGGER meta_no_delete BEFORE DELETE ON meta FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: meta is never deleted') WHERE 1 = 1; END;
CREATE TRIGGER manifest_guard BEFORE INSERT ON manifest FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'version_taken: such a row is there') WHERE EXISTS (SELECT 1 FROM manifest t WHERE t.id = NEW.id); END;
CREATE TRIGGER manifest_no_return BEFORE UPDATE ON manifest FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'never_back: the manifest of an earlier moment does not come back') WHERE NEW.changes < OLD.changes OR NEW.epoch < OLD.epoch OR NEW.revision < OLD.revision; END;
CREATE TRIGGER manifest_no_delete BEFORE DELETE ON manifest FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: manifest is never deleted') WHERE 1 = 1; END;
CREATE TRIGGER alert_readable_insert BEFORE INSERT ON alert FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'unreadable: a kind of alert that this version does not know') WHERE NEW.kind NOT IN ('breaker_open', 'our_key', 'quota', 'model_unknown', 'revision_refused', 'observations_dropped', 'spool_full', 'rolled_back', 'promoted', 'canary_paused', 'awaiting_approval', 'sample_ratio', 'key_budget', 'waiver_expired', 'job_failed', 'audit_broken', 'drift', 'served_model', 'local_abort', 'canary_held', 'shadow_held', 'model_ends', 'model_ended', 'sign_in_ended', 'token_not_renewed', 'evidence_mismatch', 'internal_error', 'state_unrecorded', 'database_restored', 'test'); SELECT RAISE(ABORT, 'unreadable: a time before 1970 or after the year 8999') WHERE NEW.first_seen NOT BETWEEN 0 AND 221845392000000000 OR NEW.last_seen NOT BETWEEN 0 AND 221845392000000000 OR NEW.resolved_at NOT BETWEEN 0 AND 221845392000000000 OR NEW.told_at NOT BETWEEN 0 AND 221845392000000000; SELECT RAISE(ABORT, 'unreadable: its sources are no JSON object') WHERE NOT (CASE WHEN json_valid(NEW.sources) THEN json_type(NEW.sources) = 'object' ELSE 0 END); END;
CREATE TRIGGER alert_readable_update BEFORE UPDATE ON alert FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'unreadable: a kind of alert that this version does not know') WHERE NEW.kind NOT IN ('breaker_open', 'our_key', 'quota', 'model_unknown', 'revision_refused', 'observations_dropped', 'spool_full', 'rolled_back', 'promoted', 'canary_paused', 'awaiting_approval', 'sample_ratio', 'key_budget', 'waiver_expired', 'job_failed', 'audit_broken', 'drift', 'served_model', 'local_abort', 'canary_held', 'shadow_held', 'model_ends', 'model_ended', 'sign_in_ended', 'token_not_renewed', 'evidence_mismatch', 'internal_error', 'state_unrecorded', 'database_restored', 'test'); SELECT RAISE(ABORT, 'unreadable: a time before 1970 or after the year 8999') WHERE NEW.first_seen NOT BETWEEN 0 AND 221845392000000000 OR NEW.last_seen NOT BETWEEN 0 AND 221845392000000000 OR NEW.resolved_at NOT BETWEEN 0 AND 221845392000000000 OR NEW.told_at NOT BETWEEN 0 AND 221845392000000000; SELECT RAISE(ABORT, 'unreadable: its sources are no JSON object') WHERE NOT (CASE WHEN json_valid(NEW.sources) THEN json_type(NEW.sources) = 'object' ELSE 0 END); END;
CREATE TRIGGER target_guard BEFORE INSERT ON target FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: this target is there with another content') WHERE EXISTS (SELECT 1 FROM target t WHERE t.id = NEW.id AND (t.provider <> NEW.provider OR t.model <> NEW.model OR t.parameters <> NEW.parameters OR t.request_patch <> NEW.request_patch)); END;
CREATE TRIGGER suite_guard BEFORE INSERT ON suite FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: this suite is there with another content') WHERE EXISTS (SELECT 1 FROM suite t WHERE t.project = NEW.project AND t.digest = NEW.digest AND (t.name <> NEW.name OR t.version <> NEW.version OR t.data_sha256 <> NEW.data_sha256 OR t.scorer <> NEW.scorer OR t.template <> NEW.template OR t.items <> NEW.items)); END;
CREATE TRIGGER target_no_update BEFORE UPDATE ON target FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: target is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER target_no_delete BEFORE DELETE ON target FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: target is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER suite_no_update BEFORE UPDATE ON suite FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: suite is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER suite_no_delete BEFORE DELETE ON suite FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: suite is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER verdict_no_update BEFORE UPDATE ON verdict FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: verdict is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER verdict_no_delete BEFORE DELETE ON verdict FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: verdict is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER approval_no_update BEFORE UPDATE ON approval FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: approval is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER approval_no_delete BEFORE DELETE ON approval FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: approval is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER waiver_no_update BEFORE UPDATE ON waiver FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: waiver is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER waiver_no_delete BEFORE DELETE ON waiver FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: waiver is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER evidence_no_update BEFORE UPDATE ON evidence FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: evidence is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER evidence_no_delete BEFORE DELETE ON evidence FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: evidence is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER route_version_no_update BEFORE UPDATE ON route_version FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: route_version is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER route_version_no_delete BEFORE DELETE ON route_version FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: route_version is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER route_fallback_no_update BEFORE UPDATE ON route_fallback FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: route_fallback is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER route_fallback_no_delete BEFORE DELETE ON route_fallback FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: route_fallback is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER block_no_update BEFORE UPDATE ON block FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: block is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER block_no_delete BEFORE DELETE ON block FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: block is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER audit_event_no_update BEFORE UPDATE ON audit_event FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: audit_event is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER audit_event_no_delete BEFORE DELETE ON audit_event FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: audit_event is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER sample_guard BEFORE INSERT ON sample FOR EACH ROW BEGIN SELECT RAISE(IGNORE) WHERE EXISTS (SELECT 1 FROM sample t WHERE t.run = NEW.run AND t.item = NEW.item AND t.epoch = NEW.epoch); END;
CREATE TRIGGER block_guard BEFORE INSERT ON block FOR EACH ROW BEGIN SELECT RAISE(IGNORE) WHERE EXISTS (SELECT 1 FROM block t WHERE t.rollout = NEW.rollout AND t.number = NEW.number) OR EXISTS (SELECT 1 FROM block t WHERE t.rollout = NEW.rollout AND t.worker = NEW.worker AND t.sequence = NEW.sequence); END;
CREATE TRIGGER provider_changed_insert AFTER INSERT ON provider FOR EACH ROW BEGIN UPDATE meta SET changes = changes + 1; END;
CREATE TRIGGER provider_changed_update AFTER UPDATE ON provider FOR EACH ROW BEGIN UPDATE meta SET changes = changes + 1; END;
CREATE TRIGGER provider_changed_delete AFTER DELETE ON provider FOR EACH ROW BEGIN UPDATE meta SET changes = changes + 1; END;
CREATE TRIGGER api_key_changed_insert AFTER INSERT ON api_key FOR EACH ROW BEGIN UPDATE meta SET changes = changes + 1; END;
CREATE TRIGGER api_key_changed_update AFTER UPDATE ON api_key FOR EACH ROW BEGIN UPDATE meta SET changes = changes + 1; END;
CREATE TRIGGER api_key_changed_delete AFTER DELETE ON api_key FOR EACH ROW BEGIN UPDATE meta SET changes = changes + 1; END;
CREATE TRIGGER principal_changed_insert AFTER INSERT ON principal FOR EACH ROW BEGIN UPDATE meta SET changes = changes + 1; END;
CREATE TRIGGER principal_changed_update AFTER UPDATE ON principal FOR EACH ROW BEGIN UPDATE meta SET changes = changes + 1; END;
CREATE TRIGGER principal_changed_delete AFTER DELETE ON principal FOR EACH ROW BEGIN UPDATE meta SET changes = changes + 1; END;
CREATE TRIGGER credential_changed_insert AFTER INSERT ON credential FOR EACH ROW BEGIN UPDATE meta SET changes = changes + 1; END;
CREATE TRIGGER credential_changed_update AFTER UPDATE ON credential FOR EACH ROW BEGIN UPDATE meta SET changes = changes + 1; END;
CREATE TRIGGER credential_changed_delete AFTER DELETE ON credential FOR EACH ROW BEGIN UPDATE meta SET changes = changes + 1; END;
CREATE TRIGGER switch_changed_insert AFTER INSERT ON switch FOR EACH ROW BEGIN UPDATE meta SET changes = changes + 1; END;
CREATE TRIGGER switch_changed_update AFTER UPDATE ON switch FOR EACH ROW BEGIN UPDATE meta SET changes = changes + 1; END;
CREATE TRIGGER shadow_changed_insert AFTER INSERT ON shadow FOR EACH ROW BEGIN UPDATE meta SET changes = changes + 1; END;
CREATE TRIGGER shadow_changed_update AFTER UPDATE ON shadow FOR EACH ROW BEGIN UPDATE meta SET changes = changes + 1; END;
COMMIT;

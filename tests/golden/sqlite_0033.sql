BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0033');
CREATE TABLE "alert" (
	id TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	subject TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	title TEXT NOT NULL, 
	text TEXT NOT NULL, 
	first_seen BIGINT NOT NULL, 
	last_seen BIGINT NOT NULL, 
	count BIGINT NOT NULL, 
	sources TEXT NOT NULL, 
	resolved_at BIGINT, 
	told TEXT, 
	told_at BIGINT, 
	told_count BIGINT NOT NULL, 
	messages BIGINT NOT NULL, 
	CONSTRAINT pk_alert PRIMARY KEY (id), 
	CONSTRAINT ck_alert_count_least CHECK (count >= 1), 
	CONSTRAINT ck_alert_told_known CHECK (told IN ('raised', 'resolved')), 
	CONSTRAINT ck_alert_told_when CHECK ((told IS NULL) = (told_at IS NULL) AND (told IS NULL) = (messages = 0) AND messages >= 0), 
	CONSTRAINT ck_alert_told_count_range CHECK (told_count BETWEEN 0 AND count), 
	CONSTRAINT ck_alert_seen_in_order CHECK (last_seen >= first_seen), 
	CONSTRAINT ck_alert_kind_known CHECK (kind IN ('breaker_open', 'our_key', 'quota', 'model_unknown', 'revision_refused', 'observations_dropped', 'spool_full', 'rolled_back', 'promoted', 'canary_paused', 'awaiting_approval', 'sample_ratio', 'key_budget', 'waiver_expired', 'job_failed', 'audit_broken', 'drift', 'served_model', 'local_abort', 'canary_held', 'shadow_held', 'model_ends', 'model_ended', 'sign_in_ended', 'token_not_renewed', 'test'))
);
INSERT INTO "alert" VALUES('al_1','test','s','k','t','x',1,2,1,'{}',NULL,NULL,NULL,0,0);
CREATE TABLE api_key (
	id TEXT NOT NULL, 
	name TEXT NOT NULL, 
	hash TEXT NOT NULL, 
	hint TEXT NOT NULL, 
	role BIGINT, 
	routes TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	revoked_at BIGINT, limits TEXT, 
	CONSTRAINT pk_api_key PRIMARY KEY (id), 
	CONSTRAINT ck_api_key_role_known CHECK (role BETWEEN 1 AND 4), 
	CONSTRAINT uq_api_key_hash UNIQUE (hash)
);
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
	at BIGINT NOT NULL, 
	CONSTRAINT pk_approval PRIMARY KEY (id), 
	CONSTRAINT ck_approval_kind_known CHECK (kind IN ('canary', 'promotion')), 
	CONSTRAINT ck_approval_principal_not_blank CHECK (trim(principal) <> ''), 
	CONSTRAINT ck_approval_name_not_blank CHECK (trim(name) <> ''), 
	CONSTRAINT fk_approval_proposal FOREIGN KEY(proposal) REFERENCES proposal (id), 
	CONSTRAINT fk_approval_verdict FOREIGN KEY(verdict) REFERENCES verdict (id), 
	CONSTRAINT fk_approval_key FOREIGN KEY("key") REFERENCES api_key (id)
);
INSERT INTO "approval" VALUES('a_1','p_1','v_ok','canary','ben','ben',NULL,'','{}',1790000000000000);
CREATE TABLE audit_event (
	number BIGINT NOT NULL, 
	at BIGINT NOT NULL, 
	actor TEXT NOT NULL, 
	action TEXT NOT NULL, 
	subject TEXT NOT NULL, 
	details TEXT NOT NULL, 
	previous TEXT NOT NULL, 
	mac TEXT NOT NULL, 
	CONSTRAINT pk_audit_event PRIMARY KEY (number), 
	CONSTRAINT ck_audit_event_number_least CHECK (number >= 1)
);
INSERT INTO "audit_event" VALUES(1,1790000000000000,'ada','x','y','{}','0000000000000000000000000000000000000000000000000000000000000000','1111111111111111111111111111111111111111111111111111111111111111');
CREATE TABLE block (
	rollout TEXT NOT NULL, 
	number BIGINT NOT NULL, 
	worker TEXT NOT NULL, 
	sequence BIGINT NOT NULL, 
	weight_bps BIGINT NOT NULL, 
	units BIGINT NOT NULL, 
	canary_units BIGINT NOT NULL, 
	failures BIGINT NOT NULL, 
	canary_failures BIGINT NOT NULL, 
	missing BIGINT NOT NULL, 
	opened_at BIGINT NOT NULL, 
	closed_at BIGINT NOT NULL, period BIGINT DEFAULT '1' NOT NULL CONSTRAINT ck_block_period_least CHECK (period >= 1), counts TEXT, ranks TEXT, levels TEXT, 
	CONSTRAINT pk_block PRIMARY KEY (rollout, number), 
	CONSTRAINT ck_block_failures_range CHECK (failures >= 0 AND canary_failures BETWEEN 0 AND canary_units AND failures - canary_failures BETWEEN 0 AND units - canary_units), 
	CONSTRAINT ck_block_number_least CHECK (number >= 1), 
	CONSTRAINT ck_block_units_range CHECK (units >= 0 AND canary_units BETWEEN 0 AND units AND missing BETWEEN 0 AND units), 
	CONSTRAINT ck_block_weight_bps_range CHECK (weight_bps BETWEEN 0 AND 10000), 
	CONSTRAINT uq_block_sent_once UNIQUE (rollout, worker, sequence)
);
INSERT INTO "block" VALUES('ro_1',1,'w',1,1,5,5,5,5,0,1790000000000000,1790000000000000,1,NULL,NULL,NULL);
CREATE TABLE captured (
	id TEXT NOT NULL, 
	at BIGINT NOT NULL, 
	expires_at BIGINT NOT NULL, 
	route TEXT NOT NULL, 
	request TEXT NOT NULL, 
	endpoint TEXT NOT NULL, 
	stream BOOLEAN NOT NULL, 
	arm TEXT NOT NULL, 
	target TEXT NOT NULL, 
	revision BIGINT NOT NULL, 
	data_class TEXT NOT NULL, 
	user_hash TEXT NOT NULL, 
	share_bps BIGINT NOT NULL, 
	rules TEXT NOT NULL, 
	redactions TEXT NOT NULL, 
	content TEXT NOT NULL, 
	seen BIGINT NOT NULL, 
	CONSTRAINT pk_captured PRIMARY KEY (id), 
	CONSTRAINT ck_captured_seen_least CHECK (seen >= 1), 
	CONSTRAINT ck_captured_share_bps_range CHECK (share_bps BETWEEN 1 AND 10000), 
	CONSTRAINT ck_captured_expires_later CHECK (expires_at > at), 
	CONSTRAINT ck_captured_rules_known CHECK (length(rules) = 64)
);
CREATE TABLE credential (
	provider TEXT NOT NULL, 
	name TEXT NOT NULL, 
	ciphertext TEXT NOT NULL, 
	position BIGINT NOT NULL, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	created_by TEXT NOT NULL, 
	expires_at BIGINT, 
	CONSTRAINT pk_credential PRIMARY KEY (provider, name), 
	CONSTRAINT ck_credential_name_not_blank CHECK (trim(name) <> ''), 
	CONSTRAINT fk_credential_provider FOREIGN KEY(provider) REFERENCES provider (name)
);
CREATE TABLE delivery (
	alert TEXT NOT NULL, 
	number BIGINT NOT NULL, 
	sink TEXT NOT NULL, 
	message TEXT NOT NULL, 
	title TEXT NOT NULL, 
	text TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	next_attempt_at BIGINT, 
	attempts BIGINT NOT NULL, 
	delivered_at BIGINT, 
	gave_up_at BIGINT, 
	last_error TEXT NOT NULL, 
	CONSTRAINT pk_delivery PRIMARY KEY (alert, number, sink), 
	CONSTRAINT ck_delivery_message_known CHECK (message IN ('raised', 'resolved')), 
	CONSTRAINT ck_delivery_number_least CHECK (number >= 1), 
	CONSTRAINT ck_delivery_attempts_least CHECK (attempts >= 0), 
	CONSTRAINT ck_delivery_one_state CHECK ((next_attempt_at IS NOT NULL AND delivered_at IS NULL AND gave_up_at IS NULL) OR (next_attempt_at IS NULL AND delivered_at IS NOT NULL AND gave_up_at IS NULL) OR (next_attempt_at IS NULL AND delivered_at IS NULL AND gave_up_at IS NOT NULL)), 
	CONSTRAINT ck_delivery_delivered_by_attempt CHECK (delivered_at IS NULL OR attempts > 0), 
	CONSTRAINT fk_delivery_alert FOREIGN KEY(alert) REFERENCES alert (id) ON DELETE CASCADE
);
INSERT INTO "delivery" VALUES('al_1',1,'chat','raised','t','x',1,2,0,NULL,NULL,'');
CREATE TABLE drift_check (
	watch TEXT NOT NULL, 
	number BIGINT NOT NULL, 
	run TEXT NOT NULL, 
	started_at BIGINT NOT NULL, 
	state TEXT NOT NULL, 
	ended_at BIGINT, 
	message TEXT NOT NULL, 
	served TEXT NOT NULL, 
	scores TEXT NOT NULL, 
	evidence TEXT, 
	CONSTRAINT pk_drift_check PRIMARY KEY (watch, number), 
	CONSTRAINT ck_drift_check_state_known CHECK (state IN ('running', 'counted', 'not_measured')), 
	CONSTRAINT ck_drift_check_number_least CHECK (number >= 0), 
	CONSTRAINT ck_drift_check_ended_when CHECK ((state = 'running') = (ended_at IS NULL)), 
	CONSTRAINT fk_drift_check_watch FOREIGN KEY(watch) REFERENCES drift_watch (id), 
	CONSTRAINT fk_drift_check_run FOREIGN KEY(run) REFERENCES eval_run (id), 
	CONSTRAINT uq_drift_check_run UNIQUE (run)
);
CREATE TABLE drift_watch (
	id TEXT NOT NULL, 
	target TEXT NOT NULL, 
	suite TEXT NOT NULL, 
	suite_digest TEXT NOT NULL, 
	items BIGINT NOT NULL, 
	epochs BIGINT NOT NULL, 
	alpha DOUBLE NOT NULL, 
	state TEXT NOT NULL, 
	opened_at BIGINT NOT NULL, 
	opened_by TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	closed_at BIGINT, 
	CONSTRAINT pk_drift_watch PRIMARY KEY (id), 
	CONSTRAINT ck_drift_watch_state_known CHECK (state IN ('watching', 'drifted', 'closed')), 
	CONSTRAINT ck_drift_watch_items_least CHECK (items >= 1), 
	CONSTRAINT ck_drift_watch_epochs_least CHECK (epochs >= 1), 
	CONSTRAINT ck_drift_watch_alpha_share CHECK (alpha > 0 AND alpha < 1), 
	CONSTRAINT ck_drift_watch_closed_when CHECK ((state = 'closed') = (closed_at IS NOT NULL)), 
	CONSTRAINT fk_drift_watch_target FOREIGN KEY(target) REFERENCES target (id)
);
CREATE TABLE eval_run (
	id TEXT NOT NULL, 
	suite TEXT NOT NULL, 
	suite_digest TEXT NOT NULL, 
	target TEXT NOT NULL, 
	order_seed TEXT NOT NULL, 
	epochs BIGINT NOT NULL, 
	wanted BIGINT NOT NULL, 
	state TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	max_tokens BIGINT, 
	max_cost_usd DOUBLE, 
	lease_owner TEXT, 
	lease_until BIGINT, 
	failures BIGINT NOT NULL, 
	message TEXT NOT NULL, 
	fingerprint TEXT NOT NULL, 
	CONSTRAINT pk_eval_run PRIMARY KEY (id), 
	CONSTRAINT ck_eval_run_state_known CHECK (state IN ('queued', 'running', 'done', 'stopped', 'over_budget', 'failed')), 
	CONSTRAINT ck_eval_run_lease_whole CHECK ((lease_owner IS NULL) = (lease_until IS NULL)), 
	CONSTRAINT ck_eval_run_epochs_least CHECK (epochs >= 1), 
	CONSTRAINT ck_eval_run_failures_least CHECK (failures >= 0), 
	CONSTRAINT ck_eval_run_max_cost_usd_amount CHECK (max_cost_usd >= 0 AND max_cost_usd < 1e15), 
	CONSTRAINT ck_eval_run_max_tokens_least CHECK (max_tokens >= 0), 
	CONSTRAINT ck_eval_run_wanted_least CHECK (wanted >= 0), 
	CONSTRAINT fk_eval_run_target FOREIGN KEY(target) REFERENCES target (id)
);
INSERT INTO "eval_run" VALUES('r_1','s','d','t_old','1',1,1,'queued',1790000000000000,NULL,NULL,NULL,NULL,0,'','f');
CREATE TABLE evidence (
	id TEXT NOT NULL, 
	route TEXT NOT NULL, 
	target TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	verdict_id TEXT, 
	verdict_incumbent TEXT, 
	verdict_outcome TEXT, 
	waiver_id TEXT, 
	created_at BIGINT NOT NULL, 
	CONSTRAINT pk_evidence PRIMARY KEY (id), 
	CONSTRAINT ck_evidence_verdict_passed CHECK ((kind = 'verdict' AND verdict_id IS NOT NULL AND verdict_incumbent IS NOT NULL AND verdict_outcome IS NOT NULL AND verdict_outcome = 'passed') OR (kind <> 'verdict' AND verdict_id IS NULL AND verdict_incumbent IS NULL AND verdict_outcome IS NULL)), 
	CONSTRAINT ck_evidence_waiver_named CHECK ((kind = 'waiver') = (waiver_id IS NOT NULL)), 
	CONSTRAINT ck_evidence_kind_known CHECK (kind IN ('baseline', 'verdict', 'waiver')), 
	CONSTRAINT fk_evidence_target FOREIGN KEY(target) REFERENCES target (id), 
	CONSTRAINT fk_evidence_verdict FOREIGN KEY(verdict_id, route, verdict_incumbent, target, verdict_outcome) REFERENCES verdict (id, route, incumbent, candidate, outcome), 
	CONSTRAINT fk_evidence_waiver FOREIGN KEY(waiver_id, route, target) REFERENCES waiver (id, route, target), 
	CONSTRAINT uq_evidence_proof UNIQUE (id, route, target)
);
INSERT INTO "evidence" VALUES('e_old','a','t_old','baseline',NULL,NULL,NULL,NULL,1790000000000000);
INSERT INTO "evidence" VALUES('e_b','b','t_old','baseline',NULL,NULL,NULL,NULL,1790000000000000);
INSERT INTO "evidence" VALUES('e_new','a','t_new','verdict','v_ok','t_old','passed',NULL,1790000000000000);
INSERT INTO "evidence" VALUES('e_c','c','t_old','baseline',NULL,NULL,NULL,NULL,1);
INSERT INTO "evidence" VALUES('e_c2','c','t_third','baseline',NULL,NULL,NULL,NULL,1);
CREATE TABLE failover (
	worker TEXT NOT NULL, 
	number BIGINT NOT NULL, 
	at BIGINT NOT NULL, 
	request TEXT NOT NULL, 
	route TEXT NOT NULL, 
	arm TEXT NOT NULL, 
	target TEXT NOT NULL, 
	provider TEXT NOT NULL, 
	failure TEXT NOT NULL, 
	status BIGINT, 
	attempts BIGINT NOT NULL, 
	latency_ms DOUBLE NOT NULL, 
	endpoint TEXT NOT NULL, 
	stream BOOLEAN NOT NULL, 
	body_bytes BIGINT NOT NULL, 
	messages BIGINT NOT NULL, 
	tools BIGINT NOT NULL, 
	user_hash TEXT NOT NULL, 
	next_target TEXT, 
	CONSTRAINT pk_failover PRIMARY KEY (worker, number), 
	CONSTRAINT ck_failover_attempts_least CHECK (attempts >= 0), 
	CONSTRAINT ck_failover_body_bytes_least CHECK (body_bytes >= 0), 
	CONSTRAINT ck_failover_messages_least CHECK (messages >= 0), 
	CONSTRAINT ck_failover_tools_least CHECK (tools >= 0), 
	CONSTRAINT ck_failover_latency_ms_amount CHECK (latency_ms >= 0 AND latency_ms < 1e15)
);
CREATE TABLE key_spend (
	"key" TEXT NOT NULL, 
	day TEXT NOT NULL, 
	worker TEXT NOT NULL, 
	requests BIGINT NOT NULL, 
	tokens BIGINT NOT NULL, 
	cost_usd DOUBLE NOT NULL, 
	unpriced BIGINT NOT NULL, 
	CONSTRAINT pk_key_spend PRIMARY KEY ("key", day, worker), 
	CONSTRAINT ck_key_spend_cost_usd_amount CHECK (cost_usd >= 0 AND cost_usd < 1e15), 
	CONSTRAINT ck_key_spend_requests_least CHECK (requests >= 0), 
	CONSTRAINT ck_key_spend_tokens_least CHECK (tokens >= 0), 
	CONSTRAINT ck_key_spend_unpriced_least CHECK (unpriced >= 0)
);
CREATE TABLE meta (
	id BIGINT NOT NULL, 
	installation TEXT NOT NULL, 
	changes BIGINT NOT NULL, 
	CONSTRAINT pk_meta PRIMARY KEY (id), 
	CONSTRAINT ck_meta_one_row CHECK (id = 1)
);
INSERT INTO "meta" VALUES(1,'7758628569296994899b7f645946ed7a',1);
CREATE TABLE proposal (
	id TEXT NOT NULL, 
	route TEXT NOT NULL, 
	incumbent TEXT NOT NULL, 
	candidate TEXT NOT NULL, 
	claim TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	proposer TEXT NOT NULL, 
	policy TEXT NOT NULL, 
	self_approval BOOLEAN NOT NULL, 
	plans TEXT NOT NULL, 
	phase TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	runs TEXT NOT NULL, 
	verdict TEXT, 
	rollout TEXT, 
	infra_errors BIGINT NOT NULL, 
	retry_at BIGINT, 
	approver TEXT, 
	approved_verdict TEXT, 
	closed_because TEXT NOT NULL, 
	version BIGINT NOT NULL, 
	CONSTRAINT pk_proposal PRIMARY KEY (id), 
	CONSTRAINT ck_proposal_claim_known CHECK (claim IN ('superior', 'non_inferior', 'cheaper_and_not_worse')), 
	CONSTRAINT ck_proposal_phase_known CHECK (phase IN ('proposed', 'evaluating', 'awaiting_approval', 'shadow', 'canary', 'promoted', 'rejected', 'rolled_back', 'cancelled')), 
	CONSTRAINT ck_proposal_proposer_not_blank CHECK (trim(proposer) <> ''), 
	CONSTRAINT ck_proposal_four_eyes CHECK (approver IS NULL OR approver <> proposer OR self_approval), 
	CONSTRAINT ck_proposal_infra_errors_least CHECK (infra_errors >= 0), 
	CONSTRAINT ck_proposal_version_least CHECK (version >= 1), 
	CONSTRAINT fk_proposal_candidate FOREIGN KEY(candidate) REFERENCES target (id), 
	CONSTRAINT fk_proposal_incumbent FOREIGN KEY(incumbent) REFERENCES target (id)
);
INSERT INTO "proposal" VALUES('p_1','a','t_old','t_new','superior','','ada','{}',0,'[]','evaluating',1790000000000000,1790000000000000,'{}',NULL,NULL,0,NULL,NULL,NULL,'',1);
CREATE TABLE provider (
	name TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	api_base TEXT NOT NULL, 
	api_key_env TEXT, 
	extra_headers TEXT NOT NULL, 
	prices TEXT NOT NULL, 
	updated_at BIGINT NOT NULL, more_api_key_envs TEXT DEFAULT '[]' NOT NULL, models TEXT DEFAULT '{}' NOT NULL, extra_body TEXT DEFAULT '{}' NOT NULL, removed_at BIGINT, sealed_headers TEXT DEFAULT '{}' NOT NULL, 
	CONSTRAINT pk_provider PRIMARY KEY (name)
);
INSERT INTO "provider" VALUES('sim','openai','http://127.0.0.1:1/v1',NULL,'{}','{}',1,'[]','{}','{}',NULL,'{}');
CREATE TABLE provider_check (
	provider TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	target TEXT, 
	ok BOOLEAN NOT NULL, 
	findings TEXT NOT NULL, 
	first_token_ms DOUBLE, 
	clock_skew_s DOUBLE, 
	at BIGINT NOT NULL, 
	CONSTRAINT pk_provider_check PRIMARY KEY (provider), 
	CONSTRAINT fk_provider_check_provider FOREIGN KEY(provider) REFERENCES provider (name)
);
CREATE TABLE rollout (
	id TEXT NOT NULL, 
	proposal TEXT NOT NULL, 
	route TEXT NOT NULL, 
	incumbent TEXT NOT NULL, 
	candidate TEXT NOT NULL, 
	verdict TEXT NOT NULL, 
	policy TEXT NOT NULL, 
	salt TEXT NOT NULL, 
	step BIGINT NOT NULL, 
	state TEXT NOT NULL, 
	started_at BIGINT NOT NULL, 
	step_started_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	ended_because TEXT NOT NULL, 
	version BIGINT NOT NULL, bake_ends_at BIGINT, 
	CONSTRAINT pk_rollout PRIMARY KEY (id), 
	CONSTRAINT ck_rollout_state_known CHECK (state IN ('waiting', 'measuring', 'paused', 'promoted', 'rolled_back')), 
	CONSTRAINT ck_rollout_step_least CHECK (step >= 0), 
	CONSTRAINT ck_rollout_version_least CHECK (version >= 1), 
	CONSTRAINT fk_rollout_candidate FOREIGN KEY(candidate) REFERENCES target (id), 
	CONSTRAINT fk_rollout_incumbent FOREIGN KEY(incumbent) REFERENCES target (id), 
	CONSTRAINT fk_rollout_proposal FOREIGN KEY(proposal) REFERENCES proposal (id), 
	CONSTRAINT fk_rollout_verdict FOREIGN KEY(verdict) REFERENCES verdict (id)
);
INSERT INTO "rollout" VALUES('ro_1','p_1','a','t_old','t_new','v_ok','{}','s',0,'waiting',1790000000000000,1790000000000000,1790000000000000,'',1,NULL);
CREATE TABLE route_fallback (
	route TEXT NOT NULL, 
	version BIGINT NOT NULL, 
	position BIGINT NOT NULL, 
	target TEXT NOT NULL, 
	evidence TEXT NOT NULL, 
	CONSTRAINT pk_route_fallback PRIMARY KEY (route, version, position), 
	CONSTRAINT ck_route_fallback_position_least CHECK (position >= 0), 
	CONSTRAINT fk_route_fallback_evidence FOREIGN KEY(evidence, route, target) REFERENCES evidence (id, route, target), 
	CONSTRAINT fk_route_fallback_version FOREIGN KEY(route, version) REFERENCES route_version (route, version) DEFERRABLE INITIALLY DEFERRED, 
	CONSTRAINT uq_route_fallback_target UNIQUE (route, version, target)
);
INSERT INTO "route_fallback" VALUES('c',1,0,'t_third','e_c2');
CREATE TABLE route_version (
	route TEXT NOT NULL, 
	version BIGINT NOT NULL, 
	revision BIGINT NOT NULL, 
	kind TEXT NOT NULL, 
	incumbent TEXT NOT NULL, 
	incumbent_evidence TEXT NOT NULL, 
	canary TEXT, 
	canary_evidence TEXT, 
	weight_bps BIGINT NOT NULL, 
	salt TEXT, 
	rollout TEXT, 
	unit_rule TEXT, 
	settings TEXT NOT NULL, 
	prev_version BIGINT, 
	prev_incumbent TEXT, 
	verdict_id TEXT, 
	verdict_candidate TEXT, 
	verdict_outcome TEXT, 
	at BIGINT NOT NULL, 
	actor TEXT NOT NULL, 
	reason TEXT NOT NULL, holdback TEXT, holdback_plan TEXT, 
	CONSTRAINT pk_route_version PRIMARY KEY (route, version), 
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
	CONSTRAINT fk_route_version_canary_evidence FOREIGN KEY(canary_evidence, route, canary) REFERENCES evidence (id, route, target), 
	CONSTRAINT fk_route_version_incumbent_evidence FOREIGN KEY(incumbent_evidence, route, incumbent) REFERENCES evidence (id, route, target), 
	CONSTRAINT fk_route_version_base FOREIGN KEY(route, prev_version, prev_incumbent) REFERENCES route_version (route, version, incumbent), 
	CONSTRAINT fk_route_version_proof FOREIGN KEY(verdict_id, route, prev_incumbent, verdict_candidate, verdict_outcome) REFERENCES verdict (id, route, incumbent, candidate, outcome), 
	CONSTRAINT uq_route_version_revision UNIQUE (revision), 
	CONSTRAINT uq_route_version_base UNIQUE (route, version, incumbent)
);
INSERT INTO "route_version" VALUES('a',1,1,'baseline','t_old','e_old',NULL,NULL,0,NULL,NULL,NULL,'{}',NULL,NULL,NULL,NULL,NULL,1790000000000000,'eve','raw SQL',NULL,NULL);
INSERT INTO "route_version" VALUES('b',1,2,'baseline','t_old','e_b',NULL,NULL,0,NULL,NULL,NULL,'{}',NULL,NULL,NULL,NULL,NULL,1790000000000000,'eve','raw SQL',NULL,NULL);
INSERT INTO "route_version" VALUES('c',1,3,'baseline','t_old','e_c',NULL,NULL,0,NULL,NULL,NULL,'{}',NULL,NULL,NULL,NULL,NULL,1,'a','r',NULL,NULL);
CREATE TABLE sample (
	run TEXT NOT NULL, 
	item TEXT NOT NULL, 
	epoch BIGINT NOT NULL, 
	position BIGINT NOT NULL, 
	answer TEXT NOT NULL, 
	strict DOUBLE, 
	lenient DOUBLE, 
	input_tokens BIGINT NOT NULL, 
	output_tokens BIGINT NOT NULL, 
	cost_usd DOUBLE, 
	duration_s DOUBLE NOT NULL, 
	error TEXT, 
	error_text TEXT NOT NULL, 
	served_model TEXT NOT NULL, 
	prompt TEXT NOT NULL, 
	rule TEXT NOT NULL, cached_tokens BIGINT DEFAULT '0' NOT NULL CONSTRAINT ck_sample_cached_tokens_least CHECK (cached_tokens >= 0), judge_calls BIGINT DEFAULT '0' NOT NULL CONSTRAINT ck_sample_judge_calls_least CHECK (judge_calls >= 0), judge_cost_usd DOUBLE CONSTRAINT ck_sample_judge_cost_usd_amount CHECK (judge_cost_usd >= 0 AND judge_cost_usd < 1e15), served_build TEXT DEFAULT '' NOT NULL, judge_model TEXT DEFAULT '' NOT NULL, judge_build TEXT DEFAULT '' NOT NULL, 
	CONSTRAINT pk_sample PRIMARY KEY (run, item, epoch), 
	CONSTRAINT ck_sample_error_known CHECK (error IN ('unscored', 'infra')), 
	CONSTRAINT ck_sample_cost_usd_amount CHECK (cost_usd >= 0 AND cost_usd < 1e15), 
	CONSTRAINT ck_sample_duration_s_amount CHECK (duration_s >= 0 AND duration_s < 1e15), 
	CONSTRAINT ck_sample_input_tokens_least CHECK (input_tokens >= 0), 
	CONSTRAINT ck_sample_lenient_share CHECK (lenient >= 0 AND lenient <= 1), 
	CONSTRAINT ck_sample_output_tokens_least CHECK (output_tokens >= 0), 
	CONSTRAINT ck_sample_position_least CHECK (position >= 0), 
	CONSTRAINT ck_sample_strict_share CHECK (strict >= 0 AND strict <= 1), 
	CONSTRAINT ck_sample_scored_or_error CHECK (strict IS NOT NULL OR error IS NOT NULL), 
	CONSTRAINT fk_sample_run FOREIGN KEY(run) REFERENCES eval_run (id)
);
INSERT INTO "sample" VALUES('r_1','i1',0,0,'x',0.5,0.5,1,1,0.1,0.1,NULL,'','','','',0,0,NULL,'','','');
CREATE TABLE served_model (
	target TEXT NOT NULL, 
	model TEXT NOT NULL, 
	build TEXT NOT NULL, 
	first_at BIGINT NOT NULL, 
	last_at BIGINT NOT NULL, 
	CONSTRAINT pk_served_model PRIMARY KEY (target, model, build), 
	CONSTRAINT ck_served_model_in_order CHECK (first_at <= last_at)
);
CREATE TABLE shadow (
	id TEXT NOT NULL, 
	route TEXT NOT NULL, 
	incumbent TEXT NOT NULL, 
	candidate TEXT NOT NULL, 
	data_class TEXT NOT NULL, 
	share_bps BIGINT NOT NULL, 
	at_once BIGINT NOT NULL, 
	requests_per_day BIGINT NOT NULL, 
	usd_per_day DOUBLE, 
	proposal TEXT, 
	reason TEXT NOT NULL, 
	started_by TEXT NOT NULL, 
	started_at BIGINT NOT NULL, 
	expires_at BIGINT NOT NULL, 
	ended_at BIGINT, 
	ended_by TEXT, 
	ended_because TEXT, usd_in_all DOUBLE CONSTRAINT ck_shadow_usd_in_all_amount CHECK (usd_in_all >= 0 AND usd_in_all < 1e15), 
	CONSTRAINT pk_shadow PRIMARY KEY (id), 
	CONSTRAINT ck_shadow_share_bps_range CHECK (share_bps BETWEEN 1 AND 10000), 
	CONSTRAINT ck_shadow_at_once_range CHECK (at_once BETWEEN 1 AND 64), 
	CONSTRAINT ck_shadow_requests_per_day_least CHECK (requests_per_day >= 1), 
	CONSTRAINT ck_shadow_usd_per_day_amount CHECK (usd_per_day >= 0 AND usd_per_day < 1e15), 
	CONSTRAINT ck_shadow_reason_not_blank CHECK (trim(reason) <> ''), 
	CONSTRAINT ck_shadow_another_target CHECK (incumbent <> candidate), 
	CONSTRAINT ck_shadow_expires_later CHECK (expires_at > started_at), 
	CONSTRAINT ck_shadow_ended_by_whom CHECK ((ended_at IS NULL) = (ended_by IS NULL)), 
	CONSTRAINT fk_shadow_incumbent FOREIGN KEY(incumbent) REFERENCES target (id), 
	CONSTRAINT fk_shadow_candidate FOREIGN KEY(candidate) REFERENCES target (id), 
	CONSTRAINT fk_shadow_proposal FOREIGN KEY(proposal) REFERENCES proposal (id)
);
CREATE TABLE shadow_tally (
	shadow TEXT NOT NULL, 
	day TEXT NOT NULL, 
	worker TEXT NOT NULL, 
	counts TEXT NOT NULL, 
	sums TEXT NOT NULL, 
	CONSTRAINT pk_shadow_tally PRIMARY KEY (shadow, day, worker), 
	CONSTRAINT fk_shadow_tally_shadow FOREIGN KEY(shadow) REFERENCES shadow (id)
);
CREATE TABLE sign_in (
	provider TEXT NOT NULL, 
	id TEXT NOT NULL, 
	ciphertext TEXT NOT NULL, 
	signed_in_at BIGINT NOT NULL, 
	signed_in_by TEXT NOT NULL, 
	renewed_at BIGINT NOT NULL, 
	account_due BIGINT, 
	access_due BIGINT, 
	access_ends BIGINT, 
	attempts BIGINT NOT NULL, 
	retry_at BIGINT, 
	refused TEXT NOT NULL, 
	CONSTRAINT pk_sign_in PRIMARY KEY (provider), 
	CONSTRAINT ck_sign_in_ciphertext_not_blank CHECK (trim(ciphertext) <> ''), 
	CONSTRAINT fk_sign_in_provider FOREIGN KEY(provider) REFERENCES provider (name)
);
CREATE TABLE suite (
	digest TEXT NOT NULL, 
	name TEXT NOT NULL, 
	version TEXT NOT NULL, 
	data_sha256 TEXT NOT NULL, 
	scorer TEXT NOT NULL, 
	template TEXT NOT NULL, 
	items BIGINT NOT NULL, 
	created_at BIGINT NOT NULL, 
	CONSTRAINT pk_suite PRIMARY KEY (digest), 
	CONSTRAINT ck_suite_items_least CHECK (items >= 0)
);
INSERT INTO "suite" VALUES('d','s','1','0','x','',9,1790000000000000);
CREATE TABLE switch (
	id TEXT NOT NULL, 
	route TEXT, 
	kind TEXT NOT NULL, 
	name TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	actor TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	expires_at BIGINT, 
	source TEXT NOT NULL, 
	lifted_at BIGINT, 
	lifted_by TEXT, 
	CONSTRAINT pk_switch PRIMARY KEY (id), 
	CONSTRAINT ck_switch_kind_known CHECK (kind IN ('provider', 'target')), 
	CONSTRAINT ck_switch_source_known CHECK (source IN ('cli', 'rest')), 
	CONSTRAINT ck_switch_reason_not_blank CHECK (trim(reason) <> ''), 
	CONSTRAINT ck_switch_lifted_by_whom CHECK ((lifted_at IS NULL) = (lifted_by IS NULL))
);
CREATE TABLE target (
	id TEXT NOT NULL, 
	provider TEXT NOT NULL, 
	model TEXT NOT NULL, 
	parameters TEXT NOT NULL, 
	request_patch TEXT NOT NULL, 
	CONSTRAINT pk_target PRIMARY KEY (id)
);
INSERT INTO "target" VALUES('t_old','sim','t_old','{}','{}');
INSERT INTO "target" VALUES('t_new','sim','t_new','{}','{}');
INSERT INTO "target" VALUES('t_third','sim','t_third','{}','{}');
CREATE TABLE "traffic" (
	route TEXT NOT NULL, 
	minute BIGINT NOT NULL, 
	worker TEXT NOT NULL, 
	arm TEXT NOT NULL, 
	target TEXT NOT NULL, 
	revision BIGINT NOT NULL, 
	requests BIGINT NOT NULL, 
	failed BIGINT NOT NULL, 
	charged BIGINT NOT NULL, 
	streams BIGINT NOT NULL, 
	input_tokens BIGINT NOT NULL, 
	output_tokens BIGINT NOT NULL, 
	cost_usd DOUBLE NOT NULL, 
	latency_ms TEXT NOT NULL, cached_tokens BIGINT DEFAULT '0' NOT NULL CONSTRAINT ck_traffic_cached_tokens_least CHECK (cached_tokens >= 0), unpriced BIGINT DEFAULT '0' NOT NULL CONSTRAINT ck_traffic_unpriced_least CHECK (unpriced >= 0), 
	CONSTRAINT pk_traffic PRIMARY KEY (route, minute, worker, arm, target, revision), 
	CONSTRAINT ck_traffic_requests_least CHECK (requests >= 0), 
	CONSTRAINT ck_traffic_input_tokens_least CHECK (input_tokens >= 0), 
	CONSTRAINT ck_traffic_output_tokens_least CHECK (output_tokens >= 0), 
	CONSTRAINT ck_traffic_streams_least CHECK (streams >= 0), 
	CONSTRAINT ck_traffic_cost_usd_amount CHECK (cost_usd >= 0 AND cost_usd < 1e15), 
	CONSTRAINT ck_traffic_failed_least CHECK (failed >= 0), 
	CONSTRAINT ck_traffic_charged_least CHECK (charged >= 0), 
	CONSTRAINT ck_traffic_arm_known CHECK (arm IN ('incumbent', 'canary', 'holdback', 'keep_warm'))
);
CREATE TABLE verdict (
	id TEXT NOT NULL, 
	proposal TEXT NOT NULL, 
	route TEXT NOT NULL, 
	incumbent TEXT NOT NULL, 
	candidate TEXT NOT NULL, 
	outcome TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	suites TEXT NOT NULL, 
	inputs TEXT NOT NULL, 
	decided_at BIGINT NOT NULL, 
	expires_at BIGINT NOT NULL, 
	CONSTRAINT pk_verdict PRIMARY KEY (id), 
	CONSTRAINT ck_verdict_outcome_known CHECK (outcome IN ('passed', 'failed', 'inconclusive', 'harness_mismatch', 'infra_error')), 
	CONSTRAINT fk_verdict_candidate FOREIGN KEY(candidate) REFERENCES target (id), 
	CONSTRAINT fk_verdict_incumbent FOREIGN KEY(incumbent) REFERENCES target (id), 
	CONSTRAINT fk_verdict_proposal FOREIGN KEY(proposal) REFERENCES proposal (id), 
	CONSTRAINT uq_verdict_proof UNIQUE (id, route, incumbent, candidate, outcome)
);
INSERT INTO "verdict" VALUES('v_ok','p_1','a','t_old','t_new','passed','r','[]','{}',1790000000000000,1790000000000000);
INSERT INTO "verdict" VALUES('v_bad','p_1','a','t_old','t_new','failed','r','[]','{}',1790000000000000,1790000000000000);
INSERT INTO "verdict" VALUES('v_other_route','p_1','b','t_old','t_new','passed','r','[]','{}',1790000000000000,1790000000000000);
INSERT INTO "verdict" VALUES('v_other_incumbent','p_1','a','t_third','t_new','passed','r','[]','{}',1790000000000000,1790000000000000);
INSERT INTO "verdict" VALUES('v_other_candidate','p_1','a','t_old','t_third','passed','r','[]','{}',1790000000000000,1790000000000000);
CREATE TABLE waiver (
	id TEXT NOT NULL, 
	route TEXT NOT NULL, 
	target TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	author TEXT NOT NULL, 
	expires_at BIGINT NOT NULL, 
	CONSTRAINT pk_waiver PRIMARY KEY (id), 
	CONSTRAINT ck_waiver_author_not_blank CHECK (trim(author) <> ''), 
	CONSTRAINT ck_waiver_reason_not_blank CHECK (trim(reason) <> ''), 
	CONSTRAINT fk_waiver_target FOREIGN KEY(target) REFERENCES target (id), 
	CONSTRAINT uq_waiver_proof UNIQUE (id, route, target)
);
INSERT INTO "waiver" VALUES('w_1','a','t_third','r','ada',1790000000000000);
CREATE INDEX ix_eval_run_fingerprint ON eval_run (fingerprint, created_at);
CREATE INDEX ix_eval_run_lease_owner ON eval_run (lease_owner);
CREATE INDEX ix_eval_run_state ON eval_run (state);
CREATE INDEX ix_sample_run_position ON sample (run, position, epoch);
CREATE INDEX ix_proposal_phase ON proposal (phase);
CREATE INDEX ix_proposal_route ON proposal (route, created_at);
CREATE INDEX ix_verdict_proposal ON verdict (proposal);
CREATE INDEX ix_verdict_route ON verdict (route, decided_at);
CREATE INDEX ix_rollout_proposal ON rollout (proposal);
CREATE INDEX ix_rollout_route ON rollout (route, started_at);
CREATE INDEX ix_rollout_state ON rollout (state);
CREATE UNIQUE INDEX ux_rollout_live_route ON rollout (route) WHERE state IN ('waiting', 'measuring', 'paused');
CREATE TRIGGER route_version_guard BEFORE INSERT ON route_version FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'version_taken: such a row is there') WHERE EXISTS (SELECT 1 FROM route_version t WHERE t.route = NEW.route AND t.version = NEW.version); SELECT RAISE(ABORT, 'revision_follows: revisions rise by one') WHERE NEW.revision <> (SELECT COALESCE(MAX(revision), 0) + 1 FROM route_version); SELECT RAISE(ABORT, 'baseline_evidence: a first version needs baseline evidence') WHERE NEW.version = 1 AND NOT EXISTS (SELECT 1 FROM evidence e WHERE e.id = NEW.incumbent_evidence AND e.kind = 'baseline'); SELECT RAISE(ABORT, 'incumbent_evidence: an incumbent that stays keeps its evidence') WHERE NEW.kind IN ('canary', 'weight', 'abort', 'settings') AND NOT EXISTS (SELECT 1 FROM route_version p WHERE p.route = NEW.route AND p.version = NEW.version - 1 AND p.incumbent = NEW.incumbent AND p.incumbent_evidence = NEW.incumbent_evidence); SELECT RAISE(ABORT, 'proof_is_evidence: a promoted target''s evidence is its verdict') WHERE NEW.kind = 'promotion' AND NOT EXISTS (SELECT 1 FROM evidence e WHERE e.id = NEW.incumbent_evidence AND e.verdict_id = NEW.verdict_id); SELECT RAISE(ABORT, 'proof_is_evidence: a canary''s evidence is its verdict') WHERE NEW.kind = 'canary' AND NOT EXISTS (SELECT 1 FROM evidence e WHERE e.id = NEW.canary_evidence AND e.verdict_id = NEW.verdict_id); SELECT RAISE(ABORT, 'one_canary: a canary starts where there is none') WHERE NEW.kind = 'canary' AND NOT EXISTS (SELECT 1 FROM route_version p WHERE p.route = NEW.route AND p.version = NEW.version - 1 AND p.canary IS NULL); SELECT RAISE(ABORT, 'weight_rises: only the weight of the same canary rises') WHERE NEW.kind = 'weight' AND NOT EXISTS (SELECT 1 FROM route_version p WHERE p.route = NEW.route AND p.version = NEW.version - 1 AND COALESCE(p.canary, '') = COALESCE(NEW.canary, '') AND COALESCE(p.canary_evidence, '') = COALESCE(NEW.canary_evidence, '') AND COALESCE(p.salt, '') = COALESCE(NEW.salt, '') AND COALESCE(p.rollout, '') = COALESCE(NEW.rollout, '') AND COALESCE(p.unit_rule, '') = COALESCE(NEW.unit_rule, '') AND p.weight_bps < NEW.weight_bps); SELECT RAISE(ABORT, 'canary_stays: settings leave the canary alone') WHERE NEW.kind = 'settings' AND NOT EXISTS (SELECT 1 FROM route_version p WHERE p.route = NEW.route AND p.version = NEW.version - 1 AND COALESCE(p.canary, '') = COALESCE(NEW.canary, '') AND COALESCE(p.canary_evidence, '') = COALESCE(NEW.canary_evidence, '') AND COALESCE(p.salt, '') = COALESCE(NEW.salt, '') AND COALESCE(p.rollout, '') = COALESCE(NEW.rollout, '') AND COALESCE(p.unit_rule, '') = COALESCE(NEW.unit_rule, '') AND p.weight_bps = NEW.weight_bps); SELECT RAISE(ABORT, 'nothing_to_abort: there is no canary') WHERE NEW.kind = 'abort' AND NOT EXISTS (SELECT 1 FROM route_version p WHERE p.route = NEW.route AND p.version = NEW.version - 1 AND p.canary IS NOT NULL); SELECT RAISE(ABORT, 'never_incumbent: only a former incumbent of this route is restored') WHERE NEW.kind = 'restore' AND NOT EXISTS (SELECT 1 FROM route_version f WHERE f.route = NEW.route AND f.version < NEW.version AND f.incumbent = NEW.incumbent AND f.incumbent_evidence = NEW.incumbent_evidence); END;
CREATE TRIGGER route_fallback_guard BEFORE INSERT ON route_fallback FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'sealed: the version is written, and its chain with it') WHERE EXISTS (SELECT 1 FROM route_version v WHERE v.route = NEW.route AND v.version = NEW.version); SELECT RAISE(ABORT, 'version_taken: such a row is there') WHERE EXISTS (SELECT 1 FROM route_fallback t WHERE t.route = NEW.route AND t.version = NEW.version AND t.position = NEW.position); SELECT RAISE(ABORT, 'baseline_evidence: a baseline is what the first version served') WHERE NEW.version > 1 AND EXISTS (SELECT 1 FROM evidence e WHERE e.id = NEW.evidence AND e.kind = 'baseline') AND NOT EXISTS (SELECT 1 FROM route_version v WHERE v.route = NEW.route AND v.version = 1 AND v.incumbent_evidence = NEW.evidence) AND NOT EXISTS (SELECT 1 FROM route_fallback f WHERE f.route = NEW.route AND f.version = 1 AND f.evidence = NEW.evidence); END;
CREATE TRIGGER evidence_guard BEFORE INSERT ON evidence FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'version_taken: such a row is there') WHERE EXISTS (SELECT 1 FROM evidence t WHERE t.id = NEW.id); SELECT RAISE(ABORT, 'baseline_late: the route has versions; a new target needs a verdict or a waiver') WHERE NEW.kind = 'baseline' AND EXISTS (SELECT 1 FROM route_version v WHERE v.route = NEW.route); END;
CREATE TRIGGER audit_event_guard BEFORE INSERT ON audit_event FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'audit_gap: audit events are numbered without gaps') WHERE NEW.number <> (SELECT COALESCE(MAX(number), 0) + 1 FROM audit_event); SELECT RAISE(ABORT, 'audit_chain: this event does not follow the last one') WHERE NEW.previous <> COALESCE((SELECT a.mac FROM audit_event a WHERE a.number = NEW.number - 1), '0000000000000000000000000000000000000000000000000000000000000000'); END;
CREATE TRIGGER verdict_guard BEFORE INSERT ON verdict FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'version_taken: such a row is there') WHERE EXISTS (SELECT 1 FROM verdict t WHERE t.id = NEW.id); END;
CREATE TRIGGER waiver_guard BEFORE INSERT ON waiver FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'version_taken: such a row is there') WHERE EXISTS (SELECT 1 FROM waiver t WHERE t.id = NEW.id); END;
CREATE TRIGGER rollout_guard BEFORE INSERT ON rollout FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'version_taken: such a row is there') WHERE EXISTS (SELECT 1 FROM rollout t WHERE t.id = NEW.id); SELECT RAISE(ABORT, 'route_busy: the route has a rollout under way') WHERE NEW.state IN ('waiting', 'measuring', 'paused') AND EXISTS (SELECT 1 FROM rollout t WHERE t.route = NEW.route AND t.state IN ('waiting', 'measuring', 'paused')); END;
CREATE TRIGGER target_guard BEFORE INSERT ON target FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: this target is there with another content') WHERE EXISTS (SELECT 1 FROM target t WHERE t.id = NEW.id AND (t.provider <> NEW.provider OR t.model <> NEW.model OR t.parameters <> NEW.parameters OR t.request_patch <> NEW.request_patch)); END;
CREATE TRIGGER suite_guard BEFORE INSERT ON suite FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: this suite is there with another content') WHERE EXISTS (SELECT 1 FROM suite t WHERE t.digest = NEW.digest AND (t.name <> NEW.name OR t.version <> NEW.version OR t.data_sha256 <> NEW.data_sha256 OR t.scorer <> NEW.scorer OR t.template <> NEW.template OR t.items <> NEW.items)); END;
CREATE TRIGGER proposal_no_rewrite BEFORE UPDATE ON proposal FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'version_follows: a stored proposal''s version rises by one') WHERE NEW.version <> OLD.version + 1; SELECT RAISE(ABORT, 'registered: what was registered does not change') WHERE NEW.id <> OLD.id OR NEW.route <> OLD.route OR NEW.incumbent <> OLD.incumbent OR NEW.candidate <> OLD.candidate OR NEW.claim <> OLD.claim OR NEW.proposer <> OLD.proposer OR NEW.policy <> OLD.policy OR NEW.self_approval <> OLD.self_approval OR NEW.created_at <> OLD.created_at OR (OLD.phase <> 'proposed' AND NEW.plans <> OLD.plans); END;
CREATE TRIGGER route_version_no_update BEFORE UPDATE ON route_version FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: route_version is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER route_version_no_delete BEFORE DELETE ON route_version FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: route_version is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER route_fallback_no_update BEFORE UPDATE ON route_fallback FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: route_fallback is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER route_fallback_no_delete BEFORE DELETE ON route_fallback FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: route_fallback is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER evidence_no_update BEFORE UPDATE ON evidence FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: evidence is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER evidence_no_delete BEFORE DELETE ON evidence FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: evidence is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER audit_event_no_update BEFORE UPDATE ON audit_event FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: audit_event is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER audit_event_no_delete BEFORE DELETE ON audit_event FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: audit_event is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER verdict_no_update BEFORE UPDATE ON verdict FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: verdict is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER verdict_no_delete BEFORE DELETE ON verdict FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: verdict is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER waiver_no_update BEFORE UPDATE ON waiver FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: waiver is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER waiver_no_delete BEFORE DELETE ON waiver FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: waiver is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER target_no_update BEFORE UPDATE ON target FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: target is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER target_no_delete BEFORE DELETE ON target FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: target is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER suite_no_update BEFORE UPDATE ON suite FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: suite is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER suite_no_delete BEFORE DELETE ON suite FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: suite is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER block_no_update BEFORE UPDATE ON block FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: block is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER block_no_delete BEFORE DELETE ON block FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: block is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER sample_no_update BEFORE UPDATE OF run, item, epoch, position, strict, lenient, error ON sample FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: what was measured is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER sample_no_delete BEFORE DELETE ON sample FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: what was measured is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER sample_guard BEFORE INSERT ON sample FOR EACH ROW BEGIN SELECT RAISE(IGNORE) WHERE EXISTS (SELECT 1 FROM sample t WHERE t.run = NEW.run AND t.item = NEW.item AND t.epoch = NEW.epoch); END;
CREATE TRIGGER block_guard BEFORE INSERT ON block FOR EACH ROW BEGIN SELECT RAISE(IGNORE) WHERE EXISTS (SELECT 1 FROM block t WHERE t.rollout = NEW.rollout AND t.number = NEW.number) OR EXISTS (SELECT 1 FROM block t WHERE t.rollout = NEW.rollout AND t.worker = NEW.worker AND t.sequence = NEW.sequence); END;
CREATE TRIGGER provider_changed_insert AFTER INSERT ON provider FOR EACH ROW BEGIN UPDATE meta SET changes = changes + 1; END;
CREATE TRIGGER provider_changed_update AFTER UPDATE ON provider FOR EACH ROW BEGIN UPDATE meta SET changes = changes + 1; END;
CREATE TRIGGER provider_changed_delete AFTER DELETE ON provider FOR EACH ROW BEGIN UPDATE meta SET changes = changes + 1; END;
CREATE TRIGGER api_key_changed_insert AFTER INSERT ON api_key FOR EACH ROW BEGIN UPDATE meta SET changes = changes + 1; END;
CREATE TRIGGER api_key_changed_update AFTER UPDATE ON api_key FOR EACH ROW BEGIN UPDATE meta SET changes = changes + 1; END;
CREATE TRIGGER api_key_changed_delete AFTER DELETE ON api_key FOR EACH ROW BEGIN UPDATE meta SET changes = changes + 1; END;
CREATE TRIGGER switch_guard BEFORE INSERT ON switch FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'version_taken: such a row is there') WHERE EXISTS (SELECT 1 FROM switch t WHERE t.id = NEW.id); SELECT RAISE(ABORT, 'switch_thrown: a switch is thrown before it is lifted') WHERE NEW.lifted_at IS NOT NULL; END;
CREATE TRIGGER switch_no_rewrite BEFORE UPDATE ON switch FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: a switch is lifted once') WHERE OLD.lifted_at IS NOT NULL; SELECT RAISE(ABORT, 'append_only: a switch is only ever lifted') WHERE NEW.lifted_at IS NULL; SELECT RAISE(ABORT, 'append_only: what was thrown does not change') WHERE NEW.id IS NOT OLD.id OR NEW.route IS NOT OLD.route OR NEW.kind IS NOT OLD.kind OR NEW.name IS NOT OLD.name OR NEW.reason IS NOT OLD.reason OR NEW.actor IS NOT OLD.actor OR NEW.created_at IS NOT OLD.created_at OR NEW.expires_at IS NOT OLD.expires_at OR NEW.source IS NOT OLD.source; END;
CREATE TRIGGER switch_no_delete BEFORE DELETE ON switch FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: switch is never deleted') WHERE 1 = 1; END;
CREATE TRIGGER switch_changed_insert AFTER INSERT ON switch FOR EACH ROW BEGIN UPDATE meta SET changes = changes + 1; END;
CREATE TRIGGER switch_changed_update AFTER UPDATE ON switch FOR EACH ROW BEGIN UPDATE meta SET changes = changes + 1; END;
CREATE INDEX ix_key_spend_day ON key_spend (day);
CREATE INDEX ix_delivery_next_attempt_at ON delivery (next_attempt_at);
CREATE INDEX ix_failover_at ON failover (at);
CREATE INDEX ix_failover_user_hash ON failover (user_hash, at);
CREATE TRIGGER route_version_links BEFORE INSERT ON route_version FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'chain_stays: only a change of settings changes the chain') WHERE NEW.kind NOT IN ('baseline', 'settings') AND ((SELECT count(*) FROM route_fallback n WHERE n.route = NEW.route AND n.version = NEW.version) <> (SELECT count(*) FROM route_fallback o WHERE o.route = NEW.route AND o.version = NEW.version - 1) OR EXISTS (SELECT 1 FROM route_fallback n WHERE n.route = NEW.route AND n.version = NEW.version AND NOT EXISTS (SELECT 1 FROM route_fallback o WHERE o.route = NEW.route AND o.version = NEW.version - 1 AND o.position = n.position AND o.target = n.target AND o.evidence = n.evidence))); SELECT RAISE(ABORT, 'waiver_expired: a waiver of the chain has expired') WHERE NEW.kind IN ('baseline', 'settings') AND EXISTS (SELECT 1 FROM route_fallback n JOIN evidence e ON e.id = n.evidence JOIN waiver w ON w.id = e.waiver_id WHERE n.route = NEW.route AND n.version = NEW.version AND w.expires_at <= NEW.at); END;
CREATE INDEX ix_traffic_minute ON traffic (minute);
CREATE UNIQUE INDEX uq_drift_watch_open ON drift_watch (target, suite) WHERE closed_at IS NULL;
CREATE UNIQUE INDEX uq_drift_check_running ON drift_check (watch) WHERE state = 'running';
CREATE INDEX ix_captured_route ON captured (route, at);
CREATE INDEX ix_captured_expires_at ON captured (expires_at);
CREATE INDEX ix_captured_user_hash ON captured (user_hash);
CREATE TRIGGER route_version_bake_guard BEFORE INSERT ON route_version FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'holdback_whole: a holdback has a share and a rollout') WHERE (NEW.holdback IS NULL) <> (NEW.holdback_plan IS NULL); SELECT RAISE(ABORT, 'holdback_is_the_last: a promotion holds back the incumbent before it') WHERE NEW.kind = 'promotion' AND NEW.holdback IS NOT NULL AND NEW.holdback <> NEW.prev_incumbent; SELECT RAISE(ABORT, 'holdback_stays: only a promotion holds a target back') WHERE NEW.kind <> 'promotion' AND NEW.holdback IS NOT NULL AND NOT (NEW.kind = 'settings' AND EXISTS (SELECT 1 FROM route_version p WHERE p.route = NEW.route AND p.version = NEW.version - 1 AND p.holdback = NEW.holdback AND p.holdback_plan = NEW.holdback_plan)); SELECT RAISE(ABORT, 'bake_first: the last promotion still bakes') WHERE NEW.kind = 'canary' AND EXISTS (SELECT 1 FROM route_version p WHERE p.route = NEW.route AND p.version = NEW.version - 1 AND p.holdback IS NOT NULL); SELECT RAISE(ABORT, 'verdict_used: a rollout with this verdict was rolled back') WHERE NEW.kind IN ('canary', 'promotion') AND EXISTS (SELECT 1 FROM rollout r WHERE r.verdict = NEW.verdict_id AND r.state = 'rolled_back'); END;
CREATE TRIGGER rollout_bake_guard BEFORE INSERT ON rollout FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'verdict_used: a verdict is proof of one rollout') WHERE EXISTS (SELECT 1 FROM rollout r WHERE r.verdict = NEW.verdict); END;
CREATE INDEX ix_alert_key ON alert ("key", first_seen);
CREATE UNIQUE INDEX uq_alert_open ON alert ("key") WHERE resolved_at IS NULL;
CREATE INDEX ix_alert_last_seen ON alert (last_seen);
CREATE UNIQUE INDEX uq_shadow_live ON shadow (route) WHERE ended_at IS NULL;
CREATE TRIGGER shadow_guard BEFORE INSERT ON shadow FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'version_taken: such a row is there') WHERE EXISTS (SELECT 1 FROM shadow t WHERE t.id = NEW.id); SELECT RAISE(ABORT, 'shadow_started: a shadow starts before it ends') WHERE NEW.ended_at IS NOT NULL; END;
CREATE TRIGGER shadow_no_delete BEFORE DELETE ON shadow FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: shadow is never deleted') WHERE 1 = 1; END;
CREATE TRIGGER shadow_changed_insert AFTER INSERT ON shadow FOR EACH ROW BEGIN UPDATE meta SET changes = changes + 1; END;
CREATE TRIGGER shadow_changed_update AFTER UPDATE ON shadow FOR EACH ROW BEGIN UPDATE meta SET changes = changes + 1; END;
CREATE UNIQUE INDEX ux_proposal_open_route ON proposal (route) WHERE phase IN ('proposed', 'evaluating', 'awaiting_approval', 'shadow', 'canary');
CREATE TRIGGER proposal_guard BEFORE INSERT ON proposal FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'version_taken: such a row is there') WHERE EXISTS (SELECT 1 FROM proposal t WHERE t.id = NEW.id); SELECT RAISE(ABORT, 'route_busy: the route has a proposal under way') WHERE NEW.phase IN ('proposed', 'evaluating', 'awaiting_approval', 'shadow', 'canary') AND EXISTS (SELECT 1 FROM proposal t WHERE t.route = NEW.route AND t.phase IN ('proposed', 'evaluating', 'awaiting_approval', 'shadow', 'canary')); END;
CREATE TRIGGER shadow_no_rewrite BEFORE UPDATE ON shadow FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: a shadow ends once') WHERE OLD.ended_at IS NOT NULL; SELECT RAISE(ABORT, 'append_only: a shadow is only ever ended') WHERE NEW.ended_at IS NULL; SELECT RAISE(ABORT, 'append_only: what was started does not change') WHERE NEW.id IS NOT OLD.id OR NEW.route IS NOT OLD.route OR NEW.incumbent IS NOT OLD.incumbent OR NEW.candidate IS NOT OLD.candidate OR NEW.data_class IS NOT OLD.data_class OR NEW.share_bps IS NOT OLD.share_bps OR NEW.at_once IS NOT OLD.at_once OR NEW.requests_per_day IS NOT OLD.requests_per_day OR NEW.usd_per_day IS NOT OLD.usd_per_day OR NEW.proposal IS NOT OLD.proposal OR NEW.reason IS NOT OLD.reason OR NEW.started_by IS NOT OLD.started_by OR NEW.started_at IS NOT OLD.started_at OR NEW.expires_at IS NOT OLD.expires_at OR NEW.usd_in_all IS NOT OLD.usd_in_all; END;
CREATE TRIGGER credential_changed_insert AFTER INSERT ON credential FOR EACH ROW BEGIN UPDATE meta SET changes = changes + 1; END;
CREATE TRIGGER credential_changed_update AFTER UPDATE ON credential FOR EACH ROW BEGIN UPDATE meta SET changes = changes + 1; END;
CREATE TRIGGER credential_changed_delete AFTER DELETE ON credential FOR EACH ROW BEGIN UPDATE meta SET changes = changes + 1; END;
CREATE INDEX ix_approval_proposal ON approval (proposal, at);
CREATE INDEX ix_approval_verdict ON approval (verdict);
CREATE TRIGGER approval_guard BEFORE INSERT ON approval FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'version_taken: such a row is there') WHERE EXISTS (SELECT 1 FROM approval t WHERE t.id = NEW.id); SELECT RAISE(ABORT, 'approval_of_verdict: the approval names a verdict of another proposal') WHERE NEW.verdict IS NOT NULL AND NOT EXISTS (SELECT 1 FROM verdict v WHERE v.id = NEW.verdict AND v.proposal = NEW.proposal); SELECT RAISE(ABORT, 'four_eyes: who proposed it cannot approve it') WHERE EXISTS (SELECT 1 FROM proposal p WHERE p.id = NEW.proposal AND p.proposer = NEW.name AND NOT p.self_approval); END;
CREATE TRIGGER approval_no_update BEFORE UPDATE ON approval FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: approval is never changed or deleted') WHERE 1 = 1; END;
CREATE TRIGGER approval_no_delete BEFORE DELETE ON approval FOR EACH ROW BEGIN SELECT RAISE(ABORT, 'append_only: approval is never changed or deleted') WHERE 1 = 1; END;
COMMIT;

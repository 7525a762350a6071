"""nginx as a plain proxy: it reads nothing of the body, and is the practical limit."""

from collections.abc import Sequence

from benchmarks.router.peers.peer import PATH, PLAIN, STREAMED, Ask, Peer, Site
from benchmarks.router.upstream import nginx_command

KEPT = 256


def command(site: Site) -> Sequence[str]:
    upstreams = "".join(
        f"upstream {kind} {{ server 127.0.0.1:{site.upstreams[kind]}; keepalive {KEPT}; }}\n"
        for kind in (PLAIN, STREAMED)
    )
    locations = "".join(
        f"location /{kind}/ {{ proxy_pass http://{kind}/; proxy_http_version 1.1;"
        f' proxy_set_header Connection ""; proxy_buffering {buffering}; }}\n'
        for kind, buffering in ((PLAIN, "on"), (STREAMED, "off"))
    )
    # A megabyte stays in memory, as with us.
    sizes = "client_body_buffer_size 2m; client_max_body_size 8m; proxy_max_temp_file_size 0;"
    server = f"server {{ listen 127.0.0.1:{site.port}; {sizes} {locations} }}"
    return nginx_command(site.folder, upstreams + server)


def ask(site: Site, kind: str) -> Ask:  # noqa: ARG001 - an Ask's maker
    return Ask(path=f"/{kind}{PATH}", model=kind)


PEER = Peer("nginx", command, ask)

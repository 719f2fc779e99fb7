start_all()

COMPOSE = """
name: shop
services:
  web:
    image: app:1
    environment: {{VERSION: {version}}}
    x-ports: ["shop.test:8080/http"]
    x-healthcheck: {{http: ":8080/healthy"}}
    healthcheck: {{interval: 1s, timeout: 3s, retries: 5, start_period: 60s}}
    stop_grace_period: 5s
    deploy: {{replicas: 2}}
"""
HEALTH = "uc ps shop/web -o json | jq -e '[.replicas[].health] | sort == [{}]'"


def deploy(version):
    one.succeed(f"cat > compose.yaml <<'EOF'\n{COMPOSE.format(version=version)}\nEOF")
    one.succeed("uc deploy --yes --file compose.yaml", timeout=300)


with subtest("an ingress, and a machine behind it"):
    for machine in machines:
        machine.wait_for_unit("uncloud.service")
    one.succeed("uc machine init")
    ticket = one.succeed("uc machine ticket")
    two.succeed(f"uncloudd join - <<'TICKET'\n{ticket}\nTICKET")
    two.wait_for_unit("app-image.service")
    deploy("first")
    t.assertEqual("", one.succeed("podman ps --quiet"))
    t.assertEqual("2", two.succeed("podman ps --quiet | wc -l").strip())

with subtest("a request from outside goes through the ingress to a replica, over the mesh"):
    three.wait_until_succeeds("curl -sf -m 5 -H 'Host: shop.test' http://one/ | grep -q ^first", timeout=120)

with subtest("nobody answers on the machine that is no ingress, nor for a name that nobody has"):
    for port in [80, 443]:
        three.succeed(f"nc -z -w 5 one {port}")
        three.fail(f"nc -z -w 5 two {port}")
    three.fail("curl -sf -m 5 -H 'Host: other.test' http://one/")

with subtest("a new revision is rolled out, and no request fails meanwhile"):
    three.succeed(
        "(until [ -e stop ]; do curl -sf -m 20 -H 'Host: shop.test' http://one/ || echo failed; sleep 0.2; done)"
        " >requests.log 2>&1 &"
    )
    deploy("second")
    three.wait_until_succeeds("tail -n 1 requests.log | grep -q ^second", timeout=60)
    three.succeed("touch stop")
    three.succeed("cat requests.log >&2; grep -q ^first requests.log")
    three.fail("grep -q failed requests.log")

with subtest("a replica that hangs is not asked, nor while it dies and is started again"):
    # Stopped it still accepts connections, so a request that came to it would fail for want of an answer.
    hangs = two.succeed("podman ps --quiet").split()[0]
    two.succeed(f"kill -STOP $(podman inspect --format '{{{{.State.Pid}}}}' {hangs})")
    one.wait_until_succeeds(HEALTH.format('"healthy", "unhealthy"'), timeout=120)
    for _ in range(10):
        three.succeed("curl -sf -m 5 -H 'Host: shop.test' http://one/ | grep -q ^second")
    two.succeed(f"podman kill {hangs}")
    for _ in range(10):
        three.succeed("curl -sf -m 5 -H 'Host: shop.test' http://one/ | grep -q ^second")
    one.wait_until_succeeds(HEALTH.format('"healthy", "healthy"'), timeout=180)

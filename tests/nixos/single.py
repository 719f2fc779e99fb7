start_all()

COMPOSE = """
name: hello
services:
  web:
    image: app:1
    environment: {VERSION: first}
    x-ports: ["hello.test:8080/http"]
    x-healthcheck: {http: ":8080/healthy"}
    healthcheck: {interval: 1s, timeout: 2s, retries: 3, start_period: 30s}
"""

with subtest("the agent is there and tells what to do next"):
    one.wait_for_unit("uncloud.service")
    one.fail("uc ls")
    one.succeed("uc machine init")
    one.wait_until_succeeds("uc machine ls -o json | jq -e '.machines[0].state == \"up\"'")

with subtest("a Compose file becomes a service"):
    one.wait_for_unit("app-image.service")
    one.succeed(f"cat > compose.yaml <<'EOF'\n{COMPOSE}\nEOF")
    one.succeed("uc deploy --yes --file compose.yaml")

with subtest("it is reached by its host name and by its name"):
    one.wait_until_succeeds("curl -sf -H 'Host: hello.test' http://localhost/ | grep -q ^first")
    one.wait_until_succeeds("curl -sf http://web.hello.internal:8080/ | grep -q ^first")

with subtest("deploying it again changes nothing"):
    before = one.succeed("podman ps --format '{{.ID}}'")
    one.succeed("uc deploy --yes --file compose.yaml")
    t.assertEqual(before, one.succeed("podman ps --format '{{.ID}}'"))

with subtest("a restart of the agent stops no container"):
    one.succeed("systemctl restart uncloud.service")
    one.wait_for_unit("uncloud.service")
    t.assertEqual(before, one.succeed("podman ps --format '{{.ID}}'"))
    one.wait_until_succeeds("curl -sf -H 'Host: hello.test' http://localhost/")

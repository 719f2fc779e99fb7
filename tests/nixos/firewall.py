start_all()

COMPOSE = """
name: shop
services:
  web:
    image: app:1
    environment: {VERSION: first}
    ports: ["18080:8080"]
    x-ports: ["shop.test:8080/http"]
    x-healthcheck: {http: ":8080/healthy"}
    healthcheck: {interval: 1s, timeout: 3s, retries: 5, start_period: 60s}
    deploy: {mode: global}
"""
AGENT = [51000, 51001, 51002, 51003, 51004]


def works():
    """What must go on: routes, published ports, and containers that reach one another over the mesh."""
    three.succeed("curl -sf -m 10 -H 'Host: shop.test' http://one/ | grep -q ^first")
    three.succeed("curl -sf -m 10 http://two:18080/ | grep -q ^first")
    one.succeed(f"podman exec {container} /app get http://{elsewhere}:8080/ | grep -q ^first")
    one.succeed(f"podman exec {container} /app lookup web.shop.internal")


def closed():
    """What must not answer, from outside and from a container."""
    for port in [*AGENT, 53, 8080]:
        three.fail(f"nc -z -w 3 one {port}")
    addresses = [address, f"[{management}]", "192.168.1.1", "192.168.1.3"]
    wanted = "\n".join(f"{a}:{port}" for a in addresses for port in AGENT)
    answered = one.succeed(f"podman exec -i {container} /app dial <<'EOF'\n{wanted}\n{address}:53\nEOF")
    t.assertEqual(f"{address}:53", answered.strip())


with subtest("two members and one who is none"):
    for machine in machines:
        machine.wait_for_unit("uncloud.service")
        machine.wait_for_unit("nftables.service")
    one.succeed("uc machine init")
    ticket = one.succeed("uc machine ticket")
    two.succeed(f"uncloudd join - <<'TICKET'\n{ticket}\nTICKET")
    for machine in [one, two]:
        machine.wait_for_unit("app-image.service")
    one.succeed(f"cat > compose.yaml <<'EOF'\n{COMPOSE}\nEOF")
    one.succeed("uc deploy --yes --file compose.yaml", timeout=300)
    container = one.succeed("podman ps --quiet").strip()
    replicas = "uc ps shop/web -o json | jq -r '.replicas[] | select(.machine == \"two\") | .address'"
    elsewhere = one.succeed(replicas).strip()
    address = one.succeed("uc machine inspect one -o json | jq -r .address").strip()
    management = one.succeed("uc machine inspect one -o json | jq -r .managementAddress").strip()
    one.wait_until_succeeds("curl -sf -m 5 -H 'Host: shop.test' http://localhost/", timeout=60)
    three.wait_until_succeeds("curl -sf -m 5 http://two:18080/", timeout=60)

with subtest("what is open, and what is not"):
    works()
    for port in [80, 443]:
        three.succeed(f"nc -z -w 3 one {port}")
    closed()
    # The control: a member finds the API there.
    two.succeed(f"nc -z -w 5 {management} 51000")

with subtest("the firewall of the host is loaded anew"):
    for machine in [one, two]:
        machine.succeed("systemctl reload nftables.service")
    works()
    closed()

with subtest("all rules are flushed"):
    for machine in [one, two]:
        machine.succeed("nft flush ruleset")
    works()
    for machine in [one, two]:
        machine.succeed("systemctl reload nftables.service")
    closed()

with subtest("all rules are flushed while there is no agent"):
    one.succeed("systemctl stop uncloud.service", "nft flush ruleset", "systemctl start uncloud.service")
    one.succeed("systemctl reload nftables.service")
    one.wait_until_succeeds(f"podman exec {container} /app lookup web.shop.internal", timeout=60)
    three.wait_until_succeeds("curl -sf -m 10 -H 'Host: shop.test' http://one/", timeout=60)
    works()
    closed()

start_all()

COMPOSE = """
name: shop
services:
  web:
    image: app:1
    environment: {{VERSION: {version}, SLOW: {slow}}}
    x-ports: ["shop.test:8080/http"]
    x-healthcheck: {{http: ":8080/healthy"}}
    healthcheck: {{interval: 1s, timeout: 3s, retries: 5, start_period: 60s}}
    stop_grace_period: 2s
    deploy: {{mode: global}}
"""


def write(machine, version, slow="0s"):
    machine.succeed(f"cat > compose.yaml <<'EOF'\n{COMPOSE.format(version=version, slow=slow)}\nEOF")


def up(*machines):
    for machine in machines:
        machine.wait_until_succeeds(
            f"uc machine ls -o json | jq -e '[.machines[] | select(.state == \"up\")] | length == {len(machines)}'",
            timeout=180,
        )


def fits(machine, replicas):
    """One healthy replica of one revision on each machine, no rollout under way, and no other container."""
    machine.wait_until_succeeds(
        "uc ps shop/web -o json | jq -e '[.replicas[] | select(.state == \"running\" and .health == \"healthy\")] |"
        f" length == {replicas} and (map(.revision) | unique | length == 1)'"
        " && uc inspect shop/web -o json |"
        " jq -e '[.rollouts[]? | select(.stage == \"running\" or .stage == \"returning\")] == []'",
        timeout=300,
    )


def serves(machine, version):
    machine.wait_until_succeeds(f"curl -sf -m 5 -H 'Host: shop.test' http://localhost/ | grep -q '^{version} '", timeout=180)


def alike(machines):
    def equal(_):
        digests = {machine.execute("uc store status -o json | jq -re .digest") for machine in machines}
        return len(digests) == 1 and all(status == 0 for status, _ in digests)

    retry(equal, timeout_seconds=120)


with subtest("two machines and a service"):
    for machine in machines:
        machine.wait_for_unit("uncloud.service")
    one.succeed("uc machine init")
    ticket = one.succeed("uc machine ticket")
    two.succeed(f"uncloudd join - <<'TICKET'\n{ticket}\nTICKET")
    up(one, two)
    for machine in machines:
        machine.wait_for_unit("app-image.service")
        machine.succeed("sync")  # Podman does not flush an image; one that is lost is to be sent again
    write(one, "first")
    one.succeed("uc deploy --yes --file compose.yaml", timeout=300)

with subtest("a change that was acknowledged survives the loss of power under writes"):
    one.block()  # so that nobody can tell it to two again
    two.succeed("(while :; do uc machine label one spin=$RANDOM; done) >/dev/null 2>&1 &")
    two.succeed("uc machine label two kept=yes")
    two.crash()
    two.start()
    two.wait_for_unit("uncloud.service")
    two.wait_until_succeeds("uc machine inspect two -o json | jq -e '.labels.kept == \"yes\"'", timeout=60)
    serves(two, "first")
    one.unblock()
    up(one, two)
    one.wait_until_succeeds("uc machine inspect two -o json | jq -e '.labels.kept == \"yes\"'", timeout=60)
    alike(machines)

with subtest("a machine loses power in the middle of a rollout"):
    write(one, "second", "20s")
    one.succeed("(uc deploy --yes --file compose.yaml || true; echo ended) >deploy.log 2>&1 &")
    two.wait_until_succeeds("podman ps -a --format '{{.Names}}' | grep -c . | grep -q 2", timeout=120)
    two.crash()
    one.wait_until_succeeds("grep -q ended deploy.log", timeout=300)
    two.start()
    up(one, two)
    fits(one, 2)
    write(one, "second")
    one.succeed("uc deploy --yes --file compose.yaml", timeout=300)
    serves(two, "second")

with subtest("the machine that drives a rollout loses power"):
    write(two, "third", "20s")
    two.succeed("uc deploy --yes --file compose.yaml >deploy.log 2>&1 &")
    two.wait_until_succeeds("uc inspect shop/web -o json | jq -e '[.rollouts[] | select(.stage == \"running\")] != []'", timeout=120)
    two.crash()
    one.wait_until_succeeds(
        "uc inspect shop/web -o json | jq -e '[.rollouts[] | select(.stage == \"running\" or .stage == \"returning\")] == []'",
        timeout=300,
    )
    two.start()
    up(one, two)
    fits(two, 2)
    write(two, "third")
    two.succeed("uc deploy --yes --file compose.yaml", timeout=300)
    for machine in machines:
        serves(machine, "third")
        t.assertEqual("1", machine.succeed("podman ps -a --format '{{.Names}}' | grep -c .").strip())
    alike(machines)

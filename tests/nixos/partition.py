start_all()

COMPOSE = """
name: {project}
services:
  web:
    image: app:1
    environment: {{VERSION: {version}}}
    x-ports: ["{project}.test:8080/http"]
    x-healthcheck: {{http: ":8080/healthy"}}
    healthcheck: {{interval: 1s, timeout: 3s, retries: 5, start_period: 60s}}
    stop_grace_period: 2s
    deploy: {{replicas: 3}}
"""


def join(newcomer, member):
    ticket = member.succeed("uc machine ticket")
    newcomer.succeed(f"uncloudd join - <<'TICKET'\n{ticket}\nTICKET")


def deploy(machine, project, version):
    machine.succeed(f"cat > {project}.yaml <<'EOF'\n{COMPOSE.format(project=project, version=version)}\nEOF")
    machine.succeed(f"uc deploy --yes --file {project}.yaml", timeout=300)


def see(machine, up, down):
    states = " ".join([f"{m.name}=up" for m in up] + [f"{m.name}=down" for m in down])
    machine.wait_until_succeeds(
        "uc machine ls -o json | jq -r '.machines[] | .name + \"=\" + .state' | sort | xargs |"
        f" grep -qxF '{' '.join(sorted(states.split()))}'",
        timeout=120,
    )


def healthy(machine, service, replicas):
    machine.wait_until_succeeds(
        f"uc ps {service} -o json | jq -e '[.replicas[] | select(.state == \"running\" and .health == \"healthy\")] |"
        f" length == {replicas} and (map(.revision) | unique | length == 1)'",
        timeout=240,
    )


def serves(machine, project, version):
    machine.wait_until_succeeds(f"curl -sf -m 5 -H 'Host: {project}.test' http://localhost/ | grep -q '^{version} '", timeout=120)


with subtest("three machines become a cluster"):
    for machine in machines:
        machine.wait_for_unit("uncloud.service")
    one.succeed("uc machine init")
    join(two, one)
    join(three, two)
    for machine in machines:
        see(machine, machines, [])

with subtest("the mesh is the kernel's WireGuard"):
    for machine in machines:
        machine.succeed("uc wg show -o json | jq -e '.kind == \"kernel\"'")

with subtest("a service runs on all of them"):
    for machine in machines:
        machine.wait_for_unit("app-image.service")
    deploy(one, "shop", "first")
    for machine in machines:
        serves(machine, "shop", "first")

with subtest("both sides of a partition see it"):
    three.block()
    see(one, [one, two], [three])
    see(three, [three], [one, two])

with subtest("both sides change things"):
    deploy(one, "shop", "second")
    three.succeed("uc scale --yes shop/web 4", timeout=300)
    deploy(three, "lonely", "only")
    serves(one, "shop", "second")
    serves(three, "shop", "first")
    serves(three, "lonely", "only")

with subtest("after healing all agree, and both changes hold"):
    three.unblock()
    for machine in machines:
        see(machine, machines, [])
    for machine in machines:
        healthy(machine, "shop/web", 4)
        serves(machine, "shop", "second")
        serves(machine, "lonely", "only")

    def equal(_):
        digests = {machine.execute("uc store status -o json | jq -re .digest") for machine in machines}
        return len(digests) == 1 and all(status == 0 for status, _ in digests)

    retry(equal, timeout_seconds=120)

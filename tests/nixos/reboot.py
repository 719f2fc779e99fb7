one.start()
two.start(allow_reboot=True)

COMPOSE = """
name: shop
services:
  web:
    image: app:1
    environment: {VERSION: first}
    x-ports: ["shop.test:8080/http"]
    x-healthcheck: {http: ":8080/healthy"}
    healthcheck: {interval: 1s, timeout: 3s, retries: 5, start_period: 60s}
    mem_limit: 48m
    pids_limit: 32
    cpus: "0.5"
    volumes: ["data:/data"]
    deploy: {mode: global}
volumes:
  data: {}
"""


def up(*machines):
    for machine in machines:
        machine.wait_until_succeeds(
            f"uc machine ls -o json | jq -e '[.machines[] | select(.state == \"up\")] | length == {len(machines)}'",
            timeout=180,
        )


def serves(machine):
    machine.wait_until_succeeds("curl -sf -m 5 -H 'Host: shop.test' http://localhost/ | grep -q ^first", timeout=180)


with subtest("two machines and a service"):
    for machine in machines:
        machine.wait_for_unit("uncloud.service")
    one.succeed("uc machine init")
    ticket = one.succeed("uc machine ticket")
    two.succeed(f"uncloudd join - <<'TICKET'\n{ticket}\nTICKET")
    up(one, two)
    for machine in machines:
        machine.wait_for_unit("app-image.service")
    one.succeed(f"cat > compose.yaml <<'EOF'\n{COMPOSE}\nEOF")
    one.succeed("uc deploy --yes --file compose.yaml", timeout=300)
    serves(two)

with subtest("limits of its containers hold"):
    container = two.succeed("podman ps --quiet").strip()
    group = f"/sys/fs/cgroup$(podman inspect --format '{{{{.State.CgroupPath}}}}' {container})"
    t.assertEqual(str(48 << 20), two.succeed(f"cat {group}/memory.max").strip())
    t.assertEqual("32", two.succeed(f"cat {group}/pids.max").strip())
    t.assertEqual("50000 100000", two.succeed(f"cat {group}/cpu.max").strip())

with subtest("the agent ends and begins, and no packet between the machines is lost"):
    address = one.succeed("uc machine inspect one -o json | jq -r .address").strip()
    two.succeed(f"ping -i 0.2 -c 100 -W 5 {address} >ping.log 2>&1 &")
    two.succeed("systemctl restart uncloud.service")
    two.succeed("systemctl kill --signal KILL --kill-whom main uncloud.service")
    two.wait_until_succeeds("uc machine ls", timeout=120)
    two.wait_until_succeeds("grep -q ' 0% packet loss' ping.log || { grep 'packet loss' ping.log >&2; false; }", timeout=120)
    t.assertEqual(container, two.succeed("podman ps --quiet").strip())

with subtest("rebooted alone, it serves what it served, by itself"):
    two.succeed("podman exec --user 0 $(podman ps --quiet) /app get http://localhost:8080/ | grep -q ^first")
    before = two.succeed("cat /proc/sys/kernel/random/boot_id")
    one.block()
    two.reboot()
    two.wait_for_unit("uncloud.service")
    t.assertNotEqual(before, two.succeed("cat /proc/sys/kernel/random/boot_id"))
    serves(two)
    t.assertEqual("1", two.succeed("podman ps --all --quiet | wc -l").strip())

with subtest("the others have it back"):
    one.unblock()
    up(one, two)
    one.wait_until_succeeds("uc ps shop/web -o json | jq -e '[.replicas[] | select(.health == \"healthy\")] | length == 2'", timeout=180)

with subtest("shut down in order, and on again"):
    two.shutdown()
    one.wait_until_succeeds("uc machine ls -o json | jq -e '.machines[] | select(.name == \"two\") | .state == \"down\"'", timeout=120)
    serves(one)
    two.start()
    up(one, two)
    serves(two)

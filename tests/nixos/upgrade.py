start_all()

COMPOSE = """
name: shop
services:
  web:
    image: app:1
    environment: {VERSION: first}
    x-ports: ["shop.test:8080/http"]
    x-healthcheck: {http: ":8080/healthy"}
    healthcheck: {interval: 1s, timeout: 3s, retries: 5, start_period: 60s}
    deploy: {mode: global}
"""


def up():
    for machine in machines:
        machine.wait_until_succeeds(
            "uc machine ls -o json | jq -e '[.machines[] | select(.state == \"up\")] | length == 2'", timeout=240
        )


def serves():
    two.wait_until_succeeds("curl -sf -m 5 -H 'Host: shop.test' http://localhost/ | grep -q ^first", timeout=240)


def runs(release, generation):
    """two runs a release, would boot it again, and the cluster says which generation it is."""
    two.wait_until_succeeds(f"jq -e '.labels.release == \"{release}\"' /etc/uncloud/config.json", timeout=240)
    link = two.succeed("readlink /nix/var/nix/profiles/system").strip()
    t.assertEqual(f"system-{generation}-link", link)
    t.assertEqual(
        two.succeed("readlink -f /nix/var/nix/profiles/system"), two.succeed("readlink -f /run/current-system")
    )
    up()
    one.wait_until_succeeds(
        "uc machine ls -o json | jq -re '.machines[] | select(.name == \"two\") | .generation' |"
        f" grep -q '^{generation}\\b'",
        timeout=120,
    )


def restarts():
    """A machine that was not started to be rebooted ends where it would begin anew."""
    two.wait_for_shutdown()
    two.start()


with subtest("two machines with generations, and a service"):
    for machine in machines:
        machine.wait_for_unit("uncloud.service")
    names = ["next", "deaf", "without"]
    system = {name: two.succeed(f"readlink -f /run/current-system/specialisation/{name}").strip() for name in names}
    one.succeed("uc machine init")
    ticket = one.succeed("uc machine ticket")
    two.succeed(f"uncloudd join - <<'TICKET'\n{ticket}\nTICKET")
    up()
    for machine in machines:
        machine.wait_for_unit("app-image.service")
    one.succeed(f"cat > compose.yaml <<'EOF'\n{COMPOSE}\nEOF")
    one.succeed("uc deploy --yes --file compose.yaml", timeout=300)
    serves()
    container = two.succeed("podman ps --quiet")
    runs("first", 1)

with subtest("a generation is switched to, and confirmed by the other machine; no container stops"):
    one.succeed(f"uc machine upgrade two --system {system['next']}", timeout=600)
    runs("next", 2)
    t.assertEqual(container, two.succeed("podman ps --quiet"))
    one.succeed("uc machine generations two >&2")

with subtest("a generation in which Uncloud was forgotten is refused"):
    one.fail(f"uc machine upgrade two --system {system['without']}", timeout=300)
    runs("next", 2)

with subtest("a generation that nobody hears of again is left by itself"):
    one.fail(f"uc machine upgrade two --system {system['deaf']}", timeout=600)
    runs("next", 2)
    t.assertEqual(container, two.succeed("podman ps --quiet"))

with subtest("power is lost while a generation is tried"):
    one.succeed(f"uc machine upgrade two --system {system['deaf']} >upgrade.log 2>&1 &")
    two.wait_until_succeeds(f"[ $(readlink -f /run/current-system) = {system['deaf']} ]", timeout=240)
    two.crash()
    two.start()
    two.wait_for_unit("uncloud.service")
    runs("next", 2)
    serves()

with subtest("back to the generation before, across a restart"):
    one.succeed("(uc machine rollback two --reboot && echo ok) >rollback.log 2>&1 &")
    restarts()
    one.wait_until_succeeds("grep -qx ok rollback.log", timeout=300)
    runs("first", 1)
    serves()

with subtest("a generation that is booted and not heard of is left, across another restart"):
    one.succeed(f"(uc machine upgrade two --reboot --system {system['deaf']} || echo refused) >upgrade.log 2>&1 &")
    restarts()
    two.wait_until_succeeds(f"[ $(readlink -f /run/booted-system) = {system['deaf']} ]", timeout=240)
    restarts()
    one.wait_until_succeeds("grep -qx refused upgrade.log", timeout=300)
    runs("first", 1)
    two.succeed("[ ! -L /nix/var/nix/profiles/system-3-link ]")  # it is no generation any more
    serves()

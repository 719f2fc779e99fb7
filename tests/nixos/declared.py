one.start()

KEPT = """
services:
  web:
    image: app:1
    env_file: ${CREDENTIALS_DIRECTORY}/web.env
    x-ports: ["kept.test:8080/http"]
    x-healthcheck: {http: ":8080/healthy"}
"""


def serves():
    one.wait_until_succeeds("curl -sf -m 5 -H 'Host: shop.test' http://localhost/ | grep -q ^declared", timeout=300)


with subtest("the machine becomes a cluster and runs what it declares, and nobody types a command"):
    one.wait_for_unit("uncloud.service")
    serves()
    one.wait_until_succeeds("uc machine ls -o json | jq -e '.machines[0] | .state == \"up\" and .labels.zone == \"home\"'")
    one.wait_until_succeeds("systemctl show uncloud-project-shop.service --property SubState | grep -q exited", timeout=120)

with subtest("what only root can read is deployed as well, by a unit that is not root"):
    one.succeed(
        "install -d -m 700 /var/lib/secrets",
        f"umask 077; cat > /var/lib/secrets/kept.yaml <<'EOF'\n{KEPT}\nEOF",
        "umask 077; echo VERSION=kept > /var/lib/secrets/web.env",
        "systemctl restart uncloud-project-kept.service",
    )
    one.wait_until_succeeds("curl -sf -m 5 -H 'Host: kept.test' http://localhost/ | grep -q ^kept", timeout=300)
    one.wait_until_succeeds("systemctl show uncloud-project-kept.service --property SubState | grep -q exited", timeout=120)

with subtest("declared again, it changes nothing"):
    before = one.succeed("podman ps --quiet")
    one.succeed("systemctl restart uncloud-project-shop.service")
    one.wait_until_succeeds("systemctl show uncloud-project-shop.service --property SubState | grep -q exited", timeout=120)
    t.assertEqual(before, one.succeed("podman ps --quiet"))

with subtest("what is not declared is removed"):
    one.succeed("uc scale --yes shop/web 2", timeout=120)
    one.succeed(
        "cat > more.yaml <<'EOF'\nname: shop\nservices: {extra: {image: \"app:1\"}}\nEOF",
        "uc deploy --yes --file more.yaml",
    )
    one.succeed("systemctl restart uncloud-project-shop.service")
    one.wait_until_succeeds("uc ls --project shop -o json | jq -e '[.services[].name] == [\"web\"]'", timeout=120)

with subtest("it is all there after a boot"):
    cluster = one.succeed("uc machine inspect one -o json | jq -r .id")
    one.shutdown()
    one.start()
    one.wait_for_unit("uncloud.service")
    serves()
    t.assertEqual(cluster, one.succeed("uc machine inspect one -o json | jq -r .id"))
    one.wait_until_succeeds("systemctl show uncloud-project-shop.service --property SubState | grep -q exited", timeout=120)

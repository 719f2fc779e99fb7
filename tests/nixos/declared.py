one.start()


def serves():
    one.wait_until_succeeds("curl -sf -m 5 -H 'Host: shop.test' http://localhost/ | grep -q ^declared", timeout=300)


with subtest("the machine becomes a cluster and runs what it declares, and nobody types a command"):
    one.wait_for_unit("uncloud.service")
    serves()
    one.wait_until_succeeds("uc machine ls -o json | jq -e '.machines[0] | .state == \"up\" and .labels.zone == \"home\"'")
    one.wait_until_succeeds("systemctl show uncloud-project-shop.service --property SubState | grep -q exited", timeout=120)

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

start_all()

with subtest("the first machine begins a cluster"):
    one.wait_for_unit("uncloud.service")
    one.succeed("uc machine init")

with subtest("the others join with a ticket"):
    for machine in [two, three]:
        ticket = one.succeed("uc machine ticket")
        machine.wait_for_unit("uncloud.service")
        machine.succeed(f"uncloudd join - <<'TICKET'\n{ticket}\nTICKET")
    three.wait_until_succeeds(
        "uc machine ls -o json | jq -e '[.machines[] | select(.state == \"up\")] | length == 3'", timeout=120
    )

print(three.succeed("uc machine ls"))

start_all()

with subtest("the first machine begins a cluster"):
    one.wait_for_unit("uncloud.service")
    one.succeed("uc machine init --endpoint 192.168.1.1:51820")

with subtest("the others join with a ticket"):
    for machine in [two, three]:
        ticket = one.succeed("uc machine ticket")
        machine.wait_for_unit("uncloud.service")
        machine.succeed(f"uncloudd join - <<'TICKET'\n{ticket}\nTICKET")

print(three.succeed("uc machine ls"))

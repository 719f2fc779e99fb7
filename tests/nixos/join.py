start_all()


def tell(text):
    """Writes uncloud.txt on the stick, as somebody with another computer does, and starts the machine anew."""
    two.succeed(f"mount --mkdir /dev/vdb /run/stick && cat > /run/stick/uncloud.txt <<'EOF'\n{text}\nEOF")
    two.succeed("umount /run/stick")
    two.shutdown()
    two.start()


def stick(command):
    two.succeed("mount --mkdir -o ro /dev/vdb /run/stick")
    output = two.succeed(f"cd /run/stick; {command}")
    two.succeed("umount /run/stick")
    return output


with subtest("a machine that nobody told anything boots, and waits"):
    two.wait_for_unit("uncloud.service")
    two.wait_for_unit("multi-user.target")
    two.fail("uc machine ls")
    two.succeed("mkfs.vfat -n UNCLOUD /dev/vdb")

with subtest("a file with a slip is refused aloud, and the machine boots"):
    one.wait_for_unit("uncloud.service")
    one.succeed("uc machine init")
    ticket = [line for line in one.succeed("uc machine ticket").splitlines() if not line.startswith("#")][-1]
    tell(f"nmae = shelf\nticket = {ticket}")
    two.wait_for_console_text('line 1: there is no key "nmae": did you mean name', timeout=300)
    two.wait_for_unit("uncloud.service")
    one.wait_until_succeeds("uc machine ls 2>&1 | grep -q 'could not join: uncloud.txt on .*nmae'", timeout=120)
    t.assertIn("nmae", stick("cat uncloud.txt"))
    two.fail("uc machine ls")

with subtest("a file without one makes it a member, and nobody types a command"):
    tell(f"# who it is\nname = shelf\nlabel = zone=home\nrole = worker\nticket = {ticket}")
    one.wait_until_succeeds(
        "uc machine ls -o json | jq -e '.machines[] | select(.name == \"shelf\") |"
        " .state == \"up\" and .labels.zone == \"home\" and .roles == [\"worker\"]'",
        timeout=300,
    )
    two.wait_until_succeeds("uc machine ls -o json | jq -e '.machines | length == 2'", timeout=60)
    one.fail("uc machine ls 2>&1 | grep 'could not join'")
    t.assertEqual("shelf", two.succeed("hostname").strip())

with subtest("the secret is taken off the stick, and from the machine"):
    t.assertEqual("uncloud.txt.read", stick("ls").strip())
    t.assertEqual("", stick(f"grep -rl {ticket[-40:]} . || true").strip())
    t.assertIn("shelf", stick("cat uncloud.txt.read"))
    two.wait_until_fails("test -e /var/lib/uncloud-first-boot/ticket", timeout=60)
    two.fail(f"grep -q {ticket[-40:]} /dev/vdb")

with subtest("what is told later does not make it another machine"):
    before = two.succeed("uc machine inspect shelf -o json | jq -r .id")
    tell("name = other\ntimezone = Europe/Berlin")
    two.wait_for_unit("uncloud.service")
    two.wait_until_succeeds("uc machine ls -o json | jq -e '[.machines[] | select(.state == \"up\")] | length == 2'", timeout=180)
    t.assertEqual(before, two.succeed("uc machine inspect shelf -o json | jq -r .id"))
    two.fail("date +%Z | grep -q UTC")

package stories

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"uncloud/tests/lab"
)

// nixosDouble makes a machine of the lab what the agent takes for NixOS: a
// profile with one generation, two more systems to go to, and programs in the
// place of Nix's. What runs and what boots are links and a file; the agent
// restarts with every switch, as it does where its unit has changed.
const nixosDouble = `
set -eu
touch /etc/NIXOS
profiles=/nix/var/nix/profiles
mkdir -p $profiles
for system in one two mute; do
	dir=/nix/store/$system-nixos units=/nix/store/$system-nixos/etc/systemd/system
	mkdir -p $dir/bin $units/multi-user.target.wants
	echo 26.05.$system >$dir/nixos-version
	echo x86_64-linux >$dir/system
	for unit in uncloud.service uncloud-host.service uncloud-host.path; do
		touch $units/$unit
		ln -s ../$unit $units/multi-user.target.wants/
	done
	cat >$dir/bin/switch-to-configuration <<END
#!/bin/sh
case \$1 in
test) ln -sfn $dir /run/current-system; [ $system = mute ] && systemctl stop uncloud || systemctl restart uncloud;;
boot) readlink -f $profiles/system >/nix/loader; sync;;
esac
END
	chmod +x $dir/bin/switch-to-configuration
done
ln -s /nix/store/one-nixos $profiles/system-1-link
ln -s system-1-link $profiles/system
echo /nix/store/one-nixos >/nix/loader
cat >/usr/local/bin/nix-env <<'END'
#!/bin/sh
p=$2
case $3 in
--set) n=$(($(ls ${p%/*} | sed -n 's/^system-\([0-9]*\)-link$/\1/p' | sort -n | tail -1) + 1)); ln -s $4 $p-$n-link; ln -sfn system-$n-link $p;;
--switch-generation) ln -sfn system-$4-link $p;;
--delete-generations) shift 3; for n; do rm $p-$n-link; done;;
esac
END
printf '#!/bin/sh\n[ -d "$2" ] || { echo "error: path $2 is not valid" >&2; exit 1; }\n' >/usr/local/bin/nix-store
chmod +x /usr/local/bin/nix-env /usr/local/bin/nix-store
cat >/etc/systemd/system/double-boot.service <<END
[Unit]
DefaultDependencies=no
After=local-fs.target
Before=uncloud.service uncloud-host.service sysinit.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'ln -sfn \$\$(cat /nix/loader) /run/current-system; ln -sfn \$\$(cat /nix/loader) /run/booted-system'
[Install]
WantedBy=sysinit.target
END
systemctl daemon-reload
systemctl enable --now double-boot.service
sed -i 's/"upgrade":{}/"upgrade":{"confirmWithin":"25s"}/' /etc/uncloud/config.json
systemctl restart uncloud-host.path uncloud
`

// becomesNixOS makes machines doubles, and waits until the cluster knows.
func (c *cluster) becomesNixOS(machines ...*lab.Machine) {
	c.t.Helper()
	for _, m := range machines {
		_, err := m.Shell(c.t.Context(), nixosDouble)
		try(c.t, err)
	}
	for _, m := range machines {
		c.generationIs(m, "1 (booted)")
	}
}

func (c *cluster) generationIs(m *lab.Machine, want string) {
	c.t.Helper()
	eventually(c.t, long, m.Name+" runs "+want, func(ctx context.Context) error {
		all, err := c.M(1).Members(ctx)
		if err != nil {
			return err
		}
		for _, o := range all {
			if o.GetName() == m.Name && o.GetGeneration() != want {
				return fmt.Errorf("it runs %s", o.GetGeneration())
			}
		}
		return nil
	})
}

func TestAFleetGoesToAnotherGenerationAndStopsAtTheFirstThatIsWorse(t *testing.T) {
	c := alone(t, 3)
	refused, err := c.M(1).Exec(t.Context(), "uc", "machine", "upgrade", "m2", "--system", "/nix/store/two-nixos")
	try(t, err)
	if refused.Code == 0 || !strings.Contains(refused.Stderr, "machine m2 does not run NixOS, so it has no generations") {
		t.Errorf("%+v", refused)
	}
	w := web{project: project(t), version: "one", replicas: 0}
	c.deployed(c.M(1), w)
	c.healthyOn(c.M(1), w.name(), "m1", "m2", "m3")
	c.becomesNixOS(c.M(1), c.M(2), c.M(3))

	// All of them, one after another; the connected machine restarts its agent in its own turn.
	out, err := c.M(1).Output(t.Context(), "uc", "machine", "upgrade", "--all", "--system", "/nix/store/two-nixos")
	try(t, err)
	if !strings.HasSuffix(strings.TrimSpace(out), "upgraded m2, m3, m1") {
		t.Error(out)
	}
	for i := range 3 {
		c.generationIs(c.M(i+1), "2 (booted 1)")
	}
	c.healthyOn(c.M(1), w.name(), "m1", "m2", "m3")

	// One whose agent does not start in it: it returns by itself, and m3 is left alone.
	failed, err := c.M(1).Exec(t.Context(), "uc", "machine", "upgrade", "m2", "m3", "--system", "/nix/store/mute-nixos")
	try(t, err)
	if failed.Code == 0 || !strings.Contains(failed.Stderr, "the upgrade ended at m2: nobody confirmed it within 25s") || !strings.Contains(failed.Stderr, "left alone: m3") {
		t.Errorf("%+v", failed)
	}
	c.generationIs(c.M(2), "2 (booted 1)")
	c.generationIs(c.M(3), "2 (booted 1)")

	// One that loses its power before it is confirmed boots what it ran before.
	loses := make(chan lab.Result, 1)
	go func() {
		r, _ := c.M(1).Exec(t.Context(), "uc", "machine", "upgrade", "m3", "--system", "/nix/store/mute-nixos") //nolint:errcheck // its result tells
		loses <- r
	}()
	eventually(t, long, "m3 waits to be confirmed", func(ctx context.Context) error {
		_, err := c.M(3).Output(ctx, "grep", "-q", `"step": "watching"`, "/var/lib/uncloud-host/attempt.json")
		return err
	})
	try(t, c.M(3).Kill(t.Context()))
	try(t, c.M(3).Start(t.Context()))
	if r := <-loses; r.Code == 0 || !strings.Contains(r.Stderr, "the upgrade ended at m3: the machine was started anew before it was confirmed") {
		t.Errorf("%+v", r)
	}
	c.generationIs(c.M(3), "2 (booted)")

	// And back.
	_, err = c.M(2).Output(t.Context(), "uc", "machine", "rollback", "m3")
	try(t, err)
	c.generationIs(c.M(3), "1 (booted 2)")
	out, err = c.M(2).Output(t.Context(), "uc", "machine", "generations", "m3")
	try(t, err)
	if !strings.Contains(out, "default, runs") {
		t.Error(out)
	}
	c.healthyOn(c.M(1), w.name(), "m1", "m2", "m3")
}

package hostos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// double is a directory with all that this package touches of a NixOS, and
// programs that do to it what the real ones do.
type double struct {
	t    *testing.T
	root string
	os   NixOS
}

func newDouble(t *testing.T) *double {
	d := &double{t: t, root: t.TempDir()}
	d.os = NixOS{Root: d.root, Dir: filepath.Join(d.root, "host"), Output: io.Discard, syncfs: func(string) error { return nil }}
	d.write("etc/NIXOS", "")
	d.write("proc/sys/kernel/random/boot_id", "boot-1\n")
	d.write("proc/1/stat", "1 (systemd (x)) S 0 1 1 0 -1 4194560 2 3 4 5 6 7 8 9 20 0 1 0 31 99 98 97\n")
	d.write("host/orders/.keep", "")
	d.program("nix-env", `p=$2; case $3 in
	--set) n=$(ls "${p%/*}" | sed -n 's/^system-\([0-9]*\)-link$/\1/p' | sort -n | tail -1)
		[ "$(readlink "$p-$n-link")" = "$4" ] || { n=$((n + 1)); ln -s "$4" "$p-$n-link"; }
		ln -sfn "system-$n-link" "$p";;
	--delete-generations) shift 3; for n; do [ "$(readlink "$p")" != "system-$n-link" ] && rm "$p-$n-link" || exit 1; done;;
	--switch-generation) [ -L "$p-$4-link" ] && ln -sfn "system-$4-link" "$p";;
	esac`)
	d.write("bin/install-loader", `#!/bin/sh
	readlink "$ROOT/nix/var/nix/profiles/$(readlink "$ROOT/nix/var/nix/profiles/system")" >"$ROOT/loader"`)
	d.program("nix-store", `[ -d "$ROOT$2" ] || { echo "error: path '$2' is not valid" >&2; exit 1; }; ln -sfn "$2" "$4"`)
	d.program("nix", `case $3 in
	flake) echo '{"url":"path:/somewhere"}';;
	build) echo "building $8" >&2; case $8 in good*) ln -sfn /nix/store/bbb-nixos-2 "$6"; echo /nix/store/bbb-nixos-2;; *) echo "error: attribute 'missing'" >&2; exit 1;; esac;;
	esac`)
	t.Setenv("PATH", filepath.Join(d.root, "bin")+":"+os.Getenv("PATH"))
	t.Setenv("ROOT", d.root)
	d.system("aaa-nixos-1", "")
	d.system("bbb-nixos-2", "")
	d.link("nix/var/nix/profiles/system-1-link", oldSystem)
	d.link("nix/var/nix/profiles/system", "system-1-link")
	d.link("run/current-system", oldSystem)
	d.link("run/booted-system", oldSystem)
	return d
}

func (d *double) write(path, text string) {
	d.t.Helper()
	path = filepath.Join(d.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil { //nolint:gosec // some are programs
		d.t.Fatal(err)
	}
}

func (d *double) program(name, script string) {
	d.write("bin/"+name, "#!/bin/sh\necho "+name+` "$@" >>"$ROOT/calls"`+"\n"+script+"\n")
}

func (d *double) link(path, to string) {
	d.t.Helper()
	d.write(path, "")
	os.Remove(filepath.Join(d.root, path)) //nolint:errcheck // Symlink tells
	if err := os.Symlink(to, filepath.Join(d.root, path)); err != nil {
		d.t.Fatal(err)
	}
}

// system makes one whose switch does what fails says before it does its work.
func (d *double) system(name, fails string) {
	dir := "nix/store/" + name + "/"
	d.write(dir+"nixos-version", "26.05."+name+"\n")
	d.write(dir+"system", "x86_64-linux")
	for _, unit := range ownUnits {
		d.write(dir+systemdUnits+"/"+unit, "")
		d.link(dir+systemdUnits+"/multi-user.target.wants/"+unit, "../"+unit)
	}
	d.write(dir+switchTo, "#!/bin/sh\necho "+name+` $1 >>"$ROOT/calls"`+"\n"+fails+`
case $1 in
test) ln -sfn /nix/store/`+name+` "$ROOT/run/current-system";;
boot) install-loader /nix/store/`+name+`;;
esac`)
}

func (d *double) calls() []string {
	text, err := os.ReadFile(filepath.Join(d.root, "calls"))
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimSpace(strings.ReplaceAll(string(text), d.root, "")), "\n")
}

// goes lets a host on the double carry an order out; it is confirmed when it waits.
func (d *double) goes(o Order) Attempt {
	d.t.Helper()
	h := New(Options{Dir: d.os.Dir, Machine: d.os, Log: slog.New(slog.DiscardHandler)})
	client := NewClient(d.root, d.os.Dir)
	ctx, cancel := context.WithTimeout(d.t.Context(), 30*time.Second)
	defer cancel()
	if err := client.Order(o); err != nil {
		d.t.Fatal(err)
	}
	wake, ended := make(chan struct{}, 1), make(chan error, 1)
	go client.Watch(ctx, wake) //nolint:errcheck // ends with its context
	go func() { ended <- h.Run(ctx) }()
	for {
		select {
		case err := <-ended:
			a, readErr := client.Attempt()
			if err != nil || readErr != nil || ctx.Err() != nil {
				d.t.Fatal(err, readErr, ctx.Err())
			}
			return a
		case <-wake:
			if a, err := client.Attempt(); err == nil && a.Step == Watching && o.Want != WantKeep {
				o.Want = WantKeep
				if err := client.Order(o); err != nil {
					d.t.Fatal(err)
				}
			}
		}
	}
}

func TestTheRealProgramsAreCalled(t *testing.T) {
	d := newDouble(t)
	a := d.goes(Order{ID: "upg_1", Want: WantGo, Target: Target{System: newSystem}, Within: time.Minute})
	if a.Step != Done || a.Former != oldSystem || a.Default.Number != 1 {
		t.Fatalf("%+v", a)
	}
	want := []string{
		"nix-store --realise " + newSystem + " --add-root /host/staged", "bbb-nixos-2 test",
		"nix-env --profile /nix/var/nix/profiles/system --set " + newSystem, "bbb-nixos-2 boot",
	}
	if got := d.calls(); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	all, err := d.os.Generations()
	if err != nil || len(all) != 2 || !all[1].Current || !all[1].Default || all[1].Booted || !all[0].Booted || all[1].NixOS != "26.05.bbb-nixos-2" {
		t.Fatalf("%+v %v", all, err)
	}
	if s := Summary(all); s != "2 (booted 1)" {
		t.Error(s)
	}
	before, ok := Before(all)
	if !ok || before.Number != 1 {
		t.Errorf("%+v", before)
	}
	a = d.goes(Order{ID: "upg_2", Want: WantGo, Target: Target{Generation: 1}, Within: time.Minute})
	if all, _ = d.os.Generations(); a.Step != Done || len(all) != 2 || Summary(all) != "1 (booted)" {
		t.Errorf("%+v %+v", a, all)
	}
}

func TestFailuresSayWhatTheProgramSaid(t *testing.T) {
	for what, c := range map[string]struct {
		target Target
		fails  string
		want   string
		calls  int
	}{
		"a flake that does not build": {Target{Flake: "bad", Name: "pi"}, "", `bad#nixosConfigurations."pi".config.system.build.toplevel does not build: error: attribute 'missing'`, 2},
		"no store path":               {Target{System: "/etc"}, "", "/etc is no path of a system in /nix/store", 0},
		"not here":                    {Target{System: "/nix/store/ccc"}, "", "ccc cannot be had: error: path '/nix/store/ccc' is not valid", 1},
		"no such generation":          {Target{Generation: 7}, "", "there is no generation 7 on this machine", 0},
		"a unit that does not start":  {Target{System: newSystem}, `[ $1 = boot ] || { echo "Failed to start nginx.service"; exit 4; }`, "the switch to bbb-nixos-2 failed: Failed to start nginx.service", 2},
		"a full boot partition":       {Target{System: newSystem}, `[ $1 = test ] || { echo "No space left on device" >&2; exit 1; }`, "the boot loader cannot be set to bbb-nixos-2: No space left on device", 8},
	} {
		t.Run(what, func(t *testing.T) {
			d := newDouble(t)
			d.system("bbb-nixos-2", c.fails)
			a := d.goes(Order{ID: "upg_1", Want: WantGo, Target: c.target, Within: time.Minute})
			if a.Step != Failed || a.Error != c.want || a.Stuck {
				t.Errorf("%+v", a)
			}
			if got := d.calls(); len(got) != c.calls {
				t.Errorf("%d calls: %q", len(got), got)
			}
			all, err := d.os.Generations()
			if loader, _ := os.ReadFile(filepath.Join(d.root, "loader")); err != nil || !strings.HasPrefix(Summary(all), "1 (booted)") || strings.Contains(string(loader), "bbb") {
				t.Errorf("%+v %v, boots %s", all, err, loader)
			}
		})
	}
}

func TestWhatIsRefused(t *testing.T) {
	const lost = ": this machine would be lost to the cluster; "
	want := map[string]string{switchTo: "bbb-nixos-2 is no NixOS system: it has no bin/switch-to-configuration"}
	for _, unit := range ownUnits {
		want["etc/systemd/system/"+unit] = "bbb-nixos-2 has no Uncloud in it (no " + unit + ")" + lost + "let it have services.uncloud.enable"
		want["etc/systemd/system/multi-user.target.wants/"+unit] = "bbb-nixos-2 would not start " + unit + " (not in multi-user.target.wants)" + lost +
			"let its configuration leave enable and wantedBy of that unit alone"
	}
	for remove, want := range want {
		d := newDouble(t)
		if err := os.Remove(filepath.Join(d.root, newSystem, remove)); err != nil {
			t.Fatal(err)
		}
		d.refuses(Target{System: newSystem}, want)
	}
	d := newDouble(t)
	d.write("nix/store/bbb-nixos-2/system", "aarch64-linux")
	d.refuses(Target{Flake: "good", Name: "m1"}, "bbb-nixos-2 is for aarch64-linux, and this machine is x86_64-linux")
}

// NixOS keeps the link that wants a unit which a configuration disables, and
// masks the unit: at once where a package has it, and else by another link.
func TestASystemInWhichUncloudIsDisabledIsRefused(t *testing.T) {
	for _, chain := range []bool{false, true} {
		d := newDouble(t)
		unit, to := newSystem+"/etc/systemd/system/uncloud-host.path", "/dev/null"
		if chain {
			d.link("nix/store/ccc-unit/uncloud-host.path", to)
			to = "/nix/store/ccc-unit/uncloud-host.path"
		}
		d.link(unit, to)
		d.refuses(Target{System: newSystem}, "bbb-nixos-2 would not start uncloud-host.path (masked): this machine would be lost to the cluster; "+
			"let its configuration leave enable and wantedBy of that unit alone")
	}
}

func (d *double) refuses(target Target, want string) {
	d.t.Helper()
	if _, err := d.os.Stage(d.t.Context(), target); err == nil || err.Error() != want {
		d.t.Errorf("%v\nnot %s", err, want)
	}
}

func TestAnOrderThatCannotBeReadIsNone(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON": "{", "empty": "", "another type": `{"id":"upg_1","want":"stage","within":"5m"}`, "no object": `["upg_1"]`, "another's": `{"id":"upg_2"}`,
	} {
		t.Run(name, func(t *testing.T) {
			d := newDouble(t)
			d.write("host/orders/upg_1.json", text)
			h := New(Options{Dir: d.os.Dir, Machine: d.os, Log: slog.New(slog.DiscardHandler)})
			if err := h.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(filepath.Join(d.os.Dir, "orders/upg_1.json")); !os.IsNotExist(err) {
				t.Error("it is left", err)
			}
		})
	}
}

func TestSummary(t *testing.T) {
	a, b := Info{Generation: Generation{12, "a"}}, Info{Generation: Generation{13, "b"}}
	for want, mark := range map[string]func(a, b *Info){
		"12 (booted)":             func(a, _ *Info) { a.Current, a.Booted, a.Default = true, true, true },
		"13 (booted 12)":          func(a, b *Info) { b.Current, a.Booted, b.Default = true, true, true },
		"12 (booted, next 13)":    func(a, b *Info) { a.Current, a.Booted, b.Default = true, true, true },
		"13 (booted 12, next 12)": func(a, b *Info) { b.Current, a.Booted, a.Default = true, true, true },
		"12 (not booted)":         func(a, _ *Info) { a.Current, a.Default = true, true },
	} {
		x, y := a, b
		mark(&x, &y)
		if got := Summary([]Info{x, y}); got != want {
			t.Errorf("%q, not %q", got, want)
		}
	}
}

func TestBootsAreToldApart(t *testing.T) {
	d := newDouble(t)
	seen := func() string {
		s, err := d.os.Seen(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s.Boot
	}
	if seen() != "boot-1/31" {
		t.Error(seen())
	}
	d.write("proc/1/stat", "1 (init) S 0 1")
	if _, err := d.os.Seen(t.Context()); err == nil {
		t.Error("half a line is read")
	}
}

func TestLastLines(t *testing.T) {
	l := &lastLines{most: 2}
	fmt.Fprint(l, "one\n\ntwo\nthr")
	fmt.Fprint(l, "ee"+strings.Repeat("!", 1000)+"\nfour")
	if got := l.lines(); len(got) != 2 || len(got[0]) != longestLine || !strings.HasPrefix(got[0], "three!") || got[1] != "four" {
		t.Errorf("%q", got)
	}
}

const nixFlags = "nix --extra-experimental-features nix-command flakes "

// What a flake is built from is what is in it now, and the same for all.
func TestAFlakeIsLookedAtAnewAndLocked(t *testing.T) {
	for flake, c := range map[string]struct{ url, name, built string }{
		"github:you/machines":      {"github:you/machines/0a1b?narHash=sha256-x%3D", "m1", "github:you/machines/0a1b?narHash=sha256-x%3D"},
		"github:you/machines#pi":   {"github:you/machines/0a1b", "pi", "github:you/machines/0a1b"},
		"/etc/nixos":               {"path:/etc/nixos?narHash=sha256-x%3D", "m1", "/etc/nixos"},
		"/home/you/machines":       {"git+file:///home/you/machines?rev=0a1b", "m1", "/home/you/machines"},
		"https://a.test/x.tar.zst": {"", "m1", "https://a.test/x.tar.zst"},
	} {
		t.Run(flake, func(t *testing.T) {
			d := newDouble(t)
			// The name of a newer Nix is read as well, and what else it says is long.
			key := map[bool]string{true: "url", false: "lockedUrl"}[strings.Contains(flake, "#")]
			d.write("metadata", fmt.Sprintf(`{"originalUrl":"x","locks":%q,%q:%q}`, strings.Repeat("x", 100_000), key, c.url))
			d.program("nix", `case $3 in
				flake) cat "$ROOT/metadata";;
				build) ln -sfn /nix/store/bbb-nixos-2 "$6"; echo /nix/store/bbb-nixos-2;;
			esac`)
			a := d.goes(Order{ID: "upg_1", Want: WantGo, Target: Target{Flake: flake, Name: "m1"}, Within: time.Minute})
			ref, _, named := strings.Cut(flake, "#")
			locked := map[bool]string{true: c.built, false: ""}[c.built != ref]
			if named {
				locked += "#pi"
			}
			if a.Step != Done || a.Locked != locked {
				t.Errorf("%+v, want it locked as %q", a, locked)
			}
			want := []string{
				nixFlags + "flake metadata --refresh --json " + ref,
				nixFlags + "build --refresh --out-link /host/staged --print-out-paths " + c.built + `#nixosConfigurations."` + c.name + `".config.system.build.toplevel`,
			}
			if got := d.calls(); !slices.Equal(got[:2], want) {
				t.Errorf("%q", got)
			}
		})
	}
}

// A real Nix says what the double says; it needs no store that it may write to.
func TestARealNixLocksFlakes(t *testing.T) {
	if _, err := exec.LookPath("nix"); err != nil {
		t.Skip("no nix in PATH: what it says of a flake is not looked at:", err)
	}
	dir := t.TempDir()
	for _, env := range []string{"NIX_STORE_DIR", "NIX_STATE_DIR", "NIX_LOG_DIR", "XDG_CACHE_HOME", "HOME"} {
		t.Setenv(env, filepath.Join(dir, env))
	}
	flake := filepath.Join(dir, "flake")
	if err := errors.Join(os.Mkdir(flake, 0o755), os.WriteFile(filepath.Join(flake, "flake.nix"), []byte("{ outputs = _: { }; }"), 0o600)); err != nil {
		t.Fatal(err)
	}
	n := NixOS{Root: "/", Dir: dir, Output: t.Output()}
	if locked, err := n.Lock(t.Context(), "path:"+flake); locked != "" || err != nil {
		t.Errorf("a folder is locked for all as %q: %v", locked, err)
	}
	said := &bytes.Buffer{}
	if err := n.into(t.Context(), said, "it fails", "nix", "--extra-experimental-features", "nix-command flakes", "flake", "metadata", "--refresh", "--json", "path:"+flake); err != nil ||
		!strings.Contains(said.String(), `"url":"path:`+flake+`?`) {
		t.Errorf("%s %v", said, err)
	}
	if _, err := n.Lock(t.Context(), "path:"+dir+"/none"); err == nil || !strings.HasPrefix(err.Error(), "path:"+dir+"/none cannot be read: error:") {
		t.Error(err)
	}
}

package connect

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"uncloud/internal/faults"
)

func TestConfigSurvivesSaving(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "config.yaml")
	in := &Config{CurrentContext: "home", Contexts: map[string]Context{
		"home": {Connections: []Connection{{SSH: "root@pi-1:2222", SSHKeyFile: "~/.ssh/pi"}, {Unix: "/run/x"}}},
	}}
	if err := in.Save(path); err != nil {
		t.Fatal(err)
	}
	out, err := LoadConfig(path)
	if err != nil || !reflect.DeepEqual(in, out) {
		t.Errorf("came back as %+v, %v", out, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		t.Skip("no home directory")
	}
	targets, err := out.Targets("home")
	if err != nil || targets[0] != (Target{User: "root", Host: "pi-1", Port: "2222", KeyFile: home + "/.ssh/pi"}) {
		t.Errorf("targets %+v, %v", targets, err)
	}
}

func TestWrongConfigs(t *testing.T) {
	for text, want := range map[string]string{
		"contexts: {a: {connections: [{ssh: x, unix: /y}]}}": "exactly one of ssh and unix",
		"contexts: {a: {connections: [{}]}}":                 "exactly one of ssh and unix",
		"contexts: {a: {connections: []}}":                   "context a has no connections",
		"contexts: {a: {connections: [{unix: y}]}}":          "no way to reach",
		"contexts: {a: {connections: [{tcp: y}]}}":           "line 1: field tcp not found",
		"contexts: {b: {connections: [{ssh: y}]}}":           "there is no context a",
		"contexts: [": "line 1",
	} {
		path := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Choice{Context: "a", ConfigPath: path}.Targets()
		if err == nil || !strings.Contains(err.Error(), want) || faults.CodeOf(err) == faults.Internal {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func TestOrderOfChoices(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	text := "current_context: c\ncontexts: {a: {connections: [{ssh: a}]}, b: {connections: [{ssh: b}]}, c: {connections: [{ssh: c}]}}"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, c := range map[string]Choice{
		"ssh://x":                 {Connect: "x", Context: "a", ComposeContext: "b", ConfigPath: path},
		"ssh://a":                 {Context: "a", ComposeContext: "b", ConfigPath: path},
		"ssh://b":                 {ComposeContext: "b", ConfigPath: path},
		"ssh://c":                 {ConfigPath: path},
		"unix://" + DefaultSocket: {ConfigPath: path + ".none"},
	} {
		targets, err := c.Targets()
		if err != nil || len(targets) != 1 || targets[0].String() != want {
			t.Errorf("%+v goes to %v, %v; want %s", c, targets, err, want)
		}
	}
}

package agent

import (
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

func TestLoadConfig(t *testing.T) {
	tests := []struct {
		name, text, wrong string
	}{
		{"empty object", `{}`, ""},
		{"some keys", `{"name":"pi-1","listenPort":4000,"roles":["ingress"],"endpoints":["203.0.113.5:51820"]}`, ""},
		{"unknown key", `{"namee":"pi"}`, "namee"},
		{"bad name", `{"name":"Pi One"}`, "Pi One"},
		{"bad port", `{"listenPort":70000}`, "70000"},
		{"bad role", `{"roles":["boss"]}`, "boss"},
		{"bad endpoint", `{"endpoints":["203.0.113.5"]}`, "203.0.113.5"},
		{"bad mtu", `{"mtu":5}`, "mtu"},
		{"no JSON", `name = pi`, "config.json"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config.json")
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			c, err := LoadConfig(path)
			if tt.wrong == "" {
				if err != nil || c.StateDir != DefaultStateDir {
					t.Errorf("got %+v, %v", c, err)
				}
				return
			}
			if faults.CodeOf(err) != faults.Invalid || !strings.Contains(err.Error(), tt.wrong) || faults.Of(err).Hint == "" {
				t.Errorf("error %v does not name %q with a hint", err, tt.wrong)
			}
		})
	}
}

// TestWhatAFlashedMachineWasToldIsOver its own configuration, where it says
// something, and what cannot be read costs a member nothing.
func TestWhatAFlashedMachineWasToldIsOver(t *testing.T) {
	const own = `{"name":"image","labels":{"a":"1","b":"2"},"roles":["ingress"],"listenPort":4000}`
	tests := []struct {
		name, told string
		want       Config
		wrong      string
	}{
		{"nothing", "", Config{Name: "image", Labels: map[string]string{"a": "1", "b": "2"}, Roles: []spec.Role{"ingress"}}, ""},
		{"all of it", `{"name":"pi-1","labels":{"b":"3","c":"4"},"roles":["worker"],"ticketFile":"/t"}`,
			Config{Name: "pi-1", Labels: map[string]string{"a": "1", "b": "3", "c": "4"}, Roles: []spec.Role{"worker"}, TicketFile: "/t"}, ""},
		{"half a file", `{"name":"pi`, Config{Name: "image", Labels: map[string]string{"a": "1", "b": "2"}, Roles: []spec.Role{"ingress"}}, "uncloud.txt"},
		{"a name that is none", `{"name":"Pi 1"}`, Config{Name: "image", Labels: map[string]string{"a": "1", "b": "2"}, Roles: []spec.Role{"ingress"}}, "Pi 1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path, dir := filepath.Join(t.TempDir(), "config.json"), t.TempDir()
			must(t, os.WriteFile(path, []byte(own), 0o600))
			if tt.told != "" {
				must(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(tt.told), 0o600))
			}
			c, err := loadConfig(path, dir)
			must(t, err)
			if c.ListenPort != 4000 || c.Name != tt.want.Name || !maps.Equal(c.Labels, tt.want.Labels) || !slices.Equal(c.Roles, tt.want.Roles) || c.TicketFile != tt.want.TicketFile {
				t.Errorf("%+v", c)
			}
			if tt.wrong == "" && c.untold != nil || tt.wrong != "" && (c.untold == nil || !strings.Contains(c.untold.Error(), tt.wrong)) {
				t.Errorf("untold: %v", c.untold)
			}
		})
	}
}

func TestMissingConfig(t *testing.T) {
	if _, err := LoadConfig(filepath.Join(t.TempDir(), "other.json")); err == nil {
		t.Error("a file that was asked for and is missing is no error")
	}
}

// Every key of the file is in its reference, and the reference has no other.
func TestConfigReference(t *testing.T) {
	text, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if key, ok := strings.CutPrefix(line, "| `"); ok {
			documented[key[:strings.Index(key, "`")]] = true
		}
	}
	for _, key := range jsonKeys(reflect.TypeFor[Config](), "") {
		if !documented[key] {
			t.Errorf("docs/configuration.md lacks %s", key)
		}
		delete(documented, key)
	}
	for key := range documented {
		t.Errorf("docs/configuration.md has %s, which is no key", key)
	}
}

func jsonKeys(typ reflect.Type, prefix string) []string {
	var keys []string
	for f := range typ.Fields() {
		if !f.IsExported() {
			continue
		}
		key := prefix + f.Tag.Get("json")
		if f.Type == reflect.TypeFor[IngressConfig]() || f.Type == reflect.TypeFor[UpgradeConfig]() {
			keys = append(keys, jsonKeys(f.Type, key+".")...)
			continue
		}
		keys = append(keys, key)
	}
	return keys
}

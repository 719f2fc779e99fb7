package plan

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"uncloud/internal/spec"
)

func TestDifferences(t *testing.T) {
	base := spec.ServiceSpec{Name: "web", Mode: spec.Replicated, Container: spec.ContainerSpec{
		Image: "web:1", Env: map[string]string{"A": "1", "SECRET": "x"}, Command: []string{"run", "-v"}}}
	tests := []struct {
		name   string
		change func(*spec.ServiceSpec)
		want   []string
	}{
		{"nothing", func(*spec.ServiceSpec) {}, nil},
		{"replicas are told elsewhere", func(s *spec.ServiceSpec) { s.Replicas = 9 }, nil},
		{"image first", func(s *spec.ServiceSpec) { s.Container.Image, s.Caddy = "web:2", "x" }, []string{"image web:1 -> web:2", "caddy none -> x"}},
		{"environment without values", func(s *spec.ServiceSpec) { s.Container.Env = map[string]string{"SECRET": "y", "B": "2"} },
			[]string{"env A removed", "env B added", "env SECRET changed"}},
		{"command", func(s *spec.ServiceSpec) { s.Container.Command = nil }, []string{"command run -v -> none"}},
		{"memory", func(s *spec.ServiceSpec) { s.Container.Resources.Memory = 512 << 20 }, []string{"resources.memory none -> 536870912"}},
		{"ports", func(s *spec.ServiceSpec) {
			s.Ports = []spec.Port{{Mode: spec.IngressPort, Hostname: "a.test", Container: 80, Protocol: "https"}}
		}, []string{"port https://a.test none -> container port 80"}},
		{"mounts", func(s *spec.ServiceSpec) {
			s.Container.Mounts = []spec.Mount{{Type: "bind", Source: "/a", Target: "/b"}}
		},
			[]string{`volumes none -> [{"source":"/a","target":"/b","type":"bind"}]`}},
		{"configs without content", func(s *spec.ServiceSpec) {
			s.Container.Files = []spec.File{{Target: "/etc/x", Content: []byte("hush")}}
		}, []string{"configs /etc/x added"}},
		{"volume options without values", func(s *spec.ServiceSpec) {
			s.Volumes = []spec.VolumeSpec{{Name: "data", Options: map[string]string{"password": "hush"}}}
		}, []string{"volumes.data added"}},
		{"mode", func(s *spec.ServiceSpec) { s.Mode = spec.Global }, []string{"mode replicated -> global"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			after := base
			tt.change(&after)
			if got := Differences(base, after); !slices.Equal(got, tt.want) {
				t.Errorf("got %q", got)
			}
		})
	}
}

// TestNoFieldIsForgotten sets each field of a spec and looks for a line.
func TestNoFieldIsForgotten(t *testing.T) {
	var walk func(v reflect.Value, path string, root *spec.ServiceSpec)
	walk = func(v reflect.Value, path string, root *spec.ServiceSpec) {
		for i := range v.NumField() {
			name := path + "." + v.Type().Field(i).Name
			field := v.Field(i)
			if name == ".Replicas" {
				continue
			}
			if field.Kind() == reflect.Struct {
				walk(field, name, root)
				continue
			}
			set(field)
			if len(Differences(spec.ServiceSpec{}, *root)) == 0 {
				t.Errorf("%s differs and nothing tells", name)
			}
			field.SetZero()
		}
	}
	var root spec.ServiceSpec
	walk(reflect.ValueOf(&root).Elem(), "", &root)
}

// set gives a field some value that is not the zero one.
func set(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Float64:
		v.SetFloat(1.5)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("k"), reflect.ValueOf("v"))
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
	default:
		panic("no value for " + v.Kind().String())
	}
}

func TestSecretsAreNeverShown(t *testing.T) {
	hush := "hunter2"
	after := spec.ServiceSpec{
		Container: spec.ContainerSpec{Env: map[string]string{"P": hush}, Files: []spec.File{{Target: "/x", Content: []byte(hush)}}},
		Volumes:   []spec.VolumeSpec{{Name: "v", Options: map[string]string{"o": hush}}},
	}
	for _, lines := range [][]string{Differences(spec.ServiceSpec{}, after), Differences(after, spec.ServiceSpec{})} {
		if text := strings.Join(lines, "\n"); strings.Contains(text, hush) || strings.Contains(text, "aHVudGVyMg") {
			t.Errorf("shown: %s", text)
		}
	}
}

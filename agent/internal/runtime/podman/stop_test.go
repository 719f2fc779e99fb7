package podman

import (
	"testing"
	"time"

	"uncloud/agent/internal/runtime"
	"uncloud/internal/spec"
)

// What reaches Podman: a timeout stands over the container's own, and none
// leaves it to that, which is set when the container is made.
func TestGraceThatReachesPodman(t *testing.T) {
	for _, c := range []struct {
		grace time.Duration
		want  string
	}{{runtime.OwnGrace, ""}, {0, "0"}, {time.Millisecond, "1"}, {1500 * time.Millisecond, "2"}, {2 * time.Minute, "120"}, {-time.Hour, "0"}} {
		params, err := stopOptions(c.grace).ToParams()
		must(t, err)
		if got, given := params.Get("timeout"), params.Has("timeout"); got != c.want || given != (c.want != "") {
			t.Errorf("%s: %q", c.grace, params.Encode())
		}
	}
	for grace, want := range map[time.Duration]uint{0: 10, 1500 * time.Millisecond: 2, 2 * time.Minute: 120} {
		r := runtime.ContainerRequest{Spec: spec.ContainerSpec{Image: "app:1", StopGrace: spec.Duration(grace)}}
		made, err := generate(r)
		must(t, err)
		if made.StopTimeout == nil || *made.StopTimeout != want {
			t.Errorf("%s: %v", grace, made.StopTimeout)
		}
	}
}

package rollout

import (
	"slices"
	"strings"
	"testing"
	"time"

	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// TestRemoveVolumes removes those that no service mounts, with what is in them.
func TestRemoveVolumes(t *testing.T) {
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		d := w.m("a").driver
		must(t, w.m("a").deploy(db("db:1")))
		s := w.settled("a")
		home := s.ReplicasOf(dbID)[0].Machine
		id := spec.VolumeID("shop", "data", home)
		err := d.RemoveVolumes(w.ctx, []string{id}, nil)
		wantCode(t, err, faults.Conflict)
		if !strings.Contains(err.Error(), "mounted by shop/db") {
			t.Error(err)
		}
		must(t, d.Remove(w.ctx, []string{dbID}, false, "", nil))
		w.settled("a")
		wantCode(t, d.RemoveVolumes(w.ctx, []string{id, "vol_none"}, nil), faults.NotFound)
		if len(w.settled("a").Volumes) != 1 {
			t.Error("one of two was removed")
		}
		must(t, d.RemoveVolumes(w.ctx, []string{id}, nil))
		if n := len(w.settled("a").Volumes); n != 0 || !slices.Equal(w.machines[home].emptied, []string{"shop/data"}) {
			t.Errorf("%d volumes are left, content removed of %v", n, w.machines[home].emptied)
		}
	})
}

// TestRemoveVolumesOfAMachineThatIsDown says that their content stays.
func TestRemoveVolumesOfAMachineThatIsDown(t *testing.T) {
	inWorld(t, three, func(t *testing.T, w *simWorld) {
		sp := db("db:1")
		sp.Placement.Machines = []string{"c"}
		must(t, w.m("a").deploy(sp))
		must(t, w.m("a").driver.Remove(w.ctx, []string{dbID}, false, "", nil))
		w.m("c").crash()
		time.Sleep(5 * time.Second)
		var notes []string
		must(t, w.m("a").driver.RemoveVolumes(w.ctx, []string{spec.VolumeID("shop", "data", "mch_c")}, func(p Progress) {
			notes = append(notes, p.Text)
		}))
		if !slices.Contains(notes, "the content of volume data stays on c, which is down") {
			t.Errorf("%q", notes)
		}
		if n := len(w.m("a").replica().State().Volumes); n != 0 {
			t.Errorf("%d volumes are left", n)
		}
	})
}

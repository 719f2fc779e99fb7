package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"uncloud/agent/internal/store"
	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// withRows is an open store of a cluster in dir.
func withRows(t *testing.T, dir, cluster string, rows ...spec.Row) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.Options{Dir: dir})
	must(t, err)
	_, err = s.Update(t.Context(), func(tx *store.Tx) error {
		if cluster != "" {
			tx.Put(spec.Cluster{ID: spec.ClusterKey, ClusterID: cluster})
		}
		tx.Put(spec.Machine{ID: "mch_self", Name: "self"})
		tx.Put(rows...)
		return nil
	})
	must(t, err)
	return s
}

// backupOf is a backup of a closed store with such rows.
func backupOf(t *testing.T, cluster string, rows ...spec.Row) string {
	t.Helper()
	s := withRows(t, t.TempDir(), cluster, rows...)
	path := filepath.Join(t.TempDir(), "backup")
	_, err := s.Backup(t.Context(), path)
	must(t, err)
	must(t, s.Close())
	return path
}

// described writes the description that would make a file a backup.
func described(t *testing.T, path string, content []byte) {
	t.Helper()
	sum := sha256.Sum256(content)
	text, err := json.Marshal(store.BackupInfo{SHA256: hex.EncodeToString(sum[:]), Bytes: int64(len(content))})
	must(t, err)
	must(t, errors.Join(os.WriteFile(path, content, 0o600), os.WriteFile(path+".json", text, 0o600)))
}

func stoppedMachine(t *testing.T) (Config, Identity) {
	t.Helper()
	cfg := Config{StateDir: t.TempDir()}
	id := Identity{MachineID: "mch_self", ClusterID: "cls_a", SigningKey: make([]byte, 64)}
	must(t, id.save(cfg.StateDir))
	return cfg, id
}

// TestRestoringAStoppedMachine: the store is the backup under a new site, and
// the machine knows that its copy is an old one.
func TestRestoringAStoppedMachine(t *testing.T) {
	cfg, _ := stoppedMachine(t)
	dir := filepath.Join(cfg.StateDir, storeDir)
	now := withRows(t, dir, "cls_a", spec.Project{ID: "prj_now", Name: "now"})
	site := now.Site()
	must(t, writePast(dir, pastReady))
	backup := backupOf(t, "cls_a", spec.Project{ID: "prj_then", Name: "then"})
	refusedAs(t, RestoreStopped(t.Context(), cfg, backup), faults.Conflict, "the agent of this machine runs")
	must(t, now.Close())
	must(t, RestoreStopped(t.Context(), cfg, backup))
	restored, err := store.Open(t.Context(), store.Options{Dir: dir})
	must(t, err)
	defer restored.Close()
	if projects := restored.State().Projects; len(projects) != 1 || projects["prj_then"].Name != "then" || restored.Site() == site {
		t.Errorf("%v at site %v", projects, restored.Site())
	}
	if p, err := readPast(dir); err != nil || p != pastRestored {
		t.Error(p, err)
	}
	left, err := os.ReadDir(filepath.Join(cfg.StateDir, scratchDir))
	if err != nil || len(left) > 0 {
		t.Error("left over:", left, err)
	}
}

// TestWhatIsNotRestored: each refusal has a name, and the store is what it was.
func TestWhatIsNotRestored(t *testing.T) {
	cfg, _ := stoppedMachine(t)
	dir := filepath.Join(cfg.StateDir, storeDir)
	must(t, withRows(t, dir, "cls_a", spec.Project{ID: "prj_now", Name: "now"}).Close())
	good := backupOf(t, "cls_a")
	content, err := os.ReadFile(good)
	must(t, err)
	altered := func(name string, content []byte, describe bool) string {
		path := filepath.Join(t.TempDir(), name)
		described(t, path, content)
		if !describe {
			must(t, os.Remove(path+".json"))
		}
		return path
	}
	damaged := altered("damaged", content, true)
	must(t, os.WriteFile(damaged, append([]byte{}, content[:len(content)-1]...), 0o600))
	torn := bytes.Clone(content)
	clear(torn[4096:]) // all pages but the first
	for _, c := range []struct {
		backup string
		code   faults.Code
		text   string
	}{
		{altered("alone", content, false), faults.Invalid, "cannot be verified"},
		{damaged, faults.Invalid, "is not what was written"},
		{altered("words", []byte(strings.Repeat("no database ", 1000)), true), faults.Invalid, "no backup of a store"},
		{altered("torn", torn, true), faults.Invalid, "no backup of a store"},
		{altered("empty", nil, true), faults.Invalid, "no backup of a store"},
		{backupOf(t, ""), faults.Invalid, "no backup of a store"},
		{backupOf(t, "cls_b"), faults.Conflict, "is of cluster cls_b, and this machine belongs to cls_a"},
		{without(t), faults.Conflict, "does not know this machine"},
	} {
		refusedAs(t, RestoreStopped(t.Context(), cfg, c.backup), c.code, c.text)
	}
	refusedAs(t, unfit(faults.New(faults.Conflict, "written by schema 9")), faults.Conflict, "newer than this agent: written by schema 9")
	s, err := store.Open(t.Context(), store.Options{Dir: dir})
	must(t, err)
	defer s.Close()
	if len(s.State().Projects) != 1 {
		t.Error(s.State().Projects)
	}
}

// without is a backup from before this machine joined.
func without(t *testing.T) string {
	t.Helper()
	s, err := store.Open(t.Context(), store.Options{Dir: t.TempDir()})
	must(t, err)
	_, err = s.Update(t.Context(), func(tx *store.Tx) error {
		tx.Put(spec.Cluster{ID: spec.ClusterKey, ClusterID: "cls_a"}, spec.Machine{ID: "mch_first", Name: "first"})
		return nil
	})
	must(t, err)
	path := filepath.Join(t.TempDir(), "older")
	_, err = s.Backup(t.Context(), path)
	must(t, errors.Join(err, s.Close()))
	return path
}

func TestWhatArrivesIsWhatWasAnnounced(t *testing.T) {
	sum := sha256.Sum256([]byte("content"))
	about := &uncloudv1.StoreBackup{Sha256: hex.EncodeToString(sum[:]), Bytes: 7}
	path := filepath.Join(t.TempDir(), "backup")
	must(t, receive(path, about, strings.NewReader("content")))
	for _, other := range []string{"", "conten", "content and more", "CONTENT"} {
		refusedAs(t, receive(path+"-"+other, about, strings.NewReader(other)), faults.Invalid, "not the backup that was announced")
	}
}

func TestWhatIsAdopted(t *testing.T) {
	svc := func(id, project, name, rev string) spec.Service {
		return spec.Service{ID: id, Project: project, Name: name, Revision: rev}
	}
	from := &spec.State{
		Machines: map[string]spec.Machine{"mch_a": {ID: "mch_a"}, "mch_gone": {ID: "mch_gone"}},
		Projects: map[string]spec.Project{"prj_s": {ID: "prj_s", Name: "shop"}, "prj_b": {ID: "prj_b", Name: "blog"}, "prj_e": {ID: "prj_e", Name: "empty"}},
		Services: map[string]spec.Service{
			"svc_w": svc("svc_w", "shop", "web", "rev_2"), "svc_d": svc("svc_d", "shop", "db", "rev_d"),
			"svc_c": svc("svc_c", "blog", "cache", "rev_c"), "svc_h": svc("svc_h", "shop", "half", "rev_lost"),
		},
		Revisions: map[string]spec.Revision{
			"rev_1": {ID: "rev_1", Service: "svc_w"}, "rev_2": {ID: "rev_2", Service: "svc_w"}, "rev_d": {ID: "rev_d", Service: "svc_d"}, "rev_c": {ID: "rev_c", Service: "svc_c"},
		},
		Replicas: map[string]spec.Replica{"rep_1": {ID: "rep_1", Service: "svc_w", Machine: "mch_gone"}},
		Volumes: map[string]spec.Volume{
			"vol_1": {ID: "vol_1", Project: "shop", Machine: "mch_a"}, "vol_2": {ID: "vol_2", Project: "shop", Machine: "mch_gone"}, "vol_3": {ID: "vol_3", Project: "blog", Machine: "mch_a"},
		},
		Tickets: map[string]spec.Ticket{"tkt_1": {ID: "tkt_1"}},
	}
	into := &spec.State{
		Machines: map[string]spec.Machine{"mch_a": {ID: "mch_a"}},
		Projects: map[string]spec.Project{"prj_b": {ID: "prj_b", Name: "blog"}},
		Services: map[string]spec.Service{"svc_c": svc("svc_c", "blog", "cache", "rev_newer")},
	}
	got := adopted(from, into)
	var rows []string
	for _, r := range got.rows {
		rows = append(rows, r.Key())
	}
	if !slices.Equal(got.services, []string{"shop/db", "shop/web"}) || !slices.Equal(got.kept, []string{"blog/cache"}) ||
		strings.Join(rows, " ") != "prj_s rev_1 rev_2 rev_d svc_d svc_w vol_1" {
		t.Errorf("%+v\n%v", got, rows)
	}
	if again := adopted(from, from); len(again.rows) > 0 || len(again.services) > 0 || len(again.kept) != 4 {
		t.Errorf("twice: %+v", again)
	}
}

// TestAMemberThatEndsUnaskedIsAnError: the service manager starts the agent anew.
func TestAMemberThatEndsUnaskedIsAnError(t *testing.T) {
	a := New(Config{StateDir: t.TempDir()}, quiet())
	lives := 0
	a.oneLife = func(context.Context, birth) (*member, error) {
		lives++
		return &member{}, nil
	}
	if err := a.live(t.Context(), Identity{}, true); !errors.Is(err, errEnded) || lives != 1 {
		t.Errorf("%v after %d lives", err, lives)
	}
}

// TestALifeFollowsARestore, with the same identity, whether it succeeded or not.
func TestALifeFollowsARestore(t *testing.T) {
	cfg, id := stoppedMachine(t)
	must(t, withRows(t, filepath.Join(cfg.StateDir, storeDir), "cls_a").Close())
	for name, backup := range map[string]string{"good": backupOf(t, "cls_a"), "none": filepath.Join(t.TempDir(), "none")} {
		a := New(cfg, quiet())
		r := &restoration{backup: backup, made: make(chan *member, 1), failed: make(chan error, 1)}
		var lives []Identity
		a.oneLife = func(_ context.Context, b birth) (*member, error) {
			lives = append(lives, b.id)
			m := &member{cfg: cfg, id: b.id}
			b.made <- m
			if len(lives) == 1 {
				m.restoring.Store(r)
			}
			return m, nil
		}
		if err := a.live(t.Context(), id, true); !errors.Is(err, errEnded) {
			t.Error(err)
		}
		if len(lives) != 2 || lives[1].MachineID != id.MachineID || <-r.made == nil {
			t.Errorf("%s: lives %v", name, lives)
		}
		if err := <-r.failed; (err == nil) != (name == "good") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestAStoreThatCannotBeReadHasNoStatus: one without a digest would look like a
// copy that differs from the others.
func TestAStoreThatCannotBeReadHasNoStatus(t *testing.T) {
	m := &member{store: withRows(t, t.TempDir(), "cls_a")}
	must(t, m.store.Close())
	if res, err := (storeCare{m}).Status(t.Context()); err == nil {
		t.Error(res)
	}
}

// TestAResetOvertakesARestore, as it may over the mesh: the machine is a new one
// then, and whoever restores is told at once.
func TestAResetOvertakesARestore(t *testing.T) {
	a := New(Config{StateDir: t.TempDir()}, quiet())
	m := &member{log: quiet(), quit: make(chan struct{}), gone: make(chan struct{})}
	m.end = func() { close(m.quit) }
	a.oneLife = func(context.Context, birth) (*member, error) {
		<-m.quit
		m.leaving.Store(true)
		a.become(nil, phaseJoining) // as of every restore
		return m, nil
	}
	a.forget = func(context.Context, *member) error { return nil }
	ctx, cancel := context.WithCancel(t.Context())
	lived := make(chan error, 1)
	go func() { lived <- a.live(ctx, Identity{}, true) }()
	_, err := a.replaceStore(ctx, m, "backup")
	refusedAs(t, err, faults.NotMember, "left its cluster before the backup")
	<-m.gone
	_, err = a.Arriving()
	refusedAs(t, err, faults.NotMember, "belongs to no cluster")
	cancel()
	if err := <-lived; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestAMachineThatArrivesCanBeLookedAt: what its refusal advises must not be
// refused as well.
func TestAMachineThatArrivesCanBeLookedAt(t *testing.T) {
	a := New(Config{}, quiet())
	if _, err := a.Arriving(); faults.CodeOf(err) != faults.NotMember {
		t.Errorf("no member: %v", err)
	}
	a.become(nil, phaseJoining)
	_, err := a.Arriving()
	refusedAs(t, err, faults.NotReady, "another copy")
	m, _ := withContainers(t)
	m.ready = make(chan struct{})
	a.become(m, phaseJoining)
	_, err = a.Member()
	refusedAs(t, err, faults.NotReady, "catches up")
	if got, err := a.Arriving(); err != nil || got.Store == nil {
		t.Errorf("%v, %v", got, err)
	}
}

package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"uncloud/agent/internal/server"
	"uncloud/agent/internal/store"
	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

// restoration is a backup that a member is to go on with. The member ends, the
// backup takes the place of its store, and the next one begins with it.
type restoration struct {
	backup string       // file, with its description beside it
	made   chan *member // the one that began; closed when none will
	failed chan error   // nil, or why the store is still the old one, or none at all
}

// RestoreStore puts a backup in place of the store while the agent runs. The
// containers run on, and the machine is gone for the others for a moment.
func (a *Agent) RestoreStore(ctx context.Context, opts server.RestoreOptions, content io.Reader) (_ *uncloudv1.RestoreStoreResponse, err error) {
	a.joining.Lock()
	defer a.joining.Unlock()
	m := a.current()
	if m == nil {
		return nil, faults.New(faults.NotMember, "this machine belongs to no cluster yet").
			WithHint("begin one and let it take in the services of the backup: uc machine init && uc store restore --adopt FILE")
	}
	dir, remove, err := scratch(a.cfg.StateDir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	backup := filepath.Join(dir, "backup")
	if err := receive(backup, opts.Backup, content); err != nil {
		return nil, err
	}
	state, err := stage(ctx, dir, backup)
	if err != nil {
		return nil, err
	}
	if opts.Adopt {
		return m.adopt(ctx, state)
	}
	if err := fits(state, m.id); err != nil {
		return nil, err
	}
	next, err := a.replaceStore(ctx, m, backup)
	if err != nil {
		return nil, err
	}
	return &uncloudv1.RestoreStoreResponse{Site: next.store.Site().String()}, next.awaitReady(ctx)
}

// RestoreStopped puts the backup in a file in place of the store of a machine
// whose agent does not run.
func RestoreStopped(ctx context.Context, cfg Config, backup string) (err error) {
	id, known, err := loadIdentity(cfg.StateDir)
	if err != nil {
		return err
	}
	if !known {
		return faults.New(faults.NotMember, "this machine belongs to no cluster").
			WithHint("start the agent, begin a cluster, and let it take in the services of the backup: uc store restore --adopt FILE")
	}
	dir, remove, err := scratch(cfg.StateDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	state, err := stage(ctx, dir, backup)
	if err != nil {
		return err
	}
	if err := fits(state, id); err != nil {
		return err
	}
	return restoreInto(ctx, filepath.Join(cfg.StateDir, storeDir), backup)
}

// receive writes a backup to a file, with its description beside it. It fails
// if the content is not what the description says.
func receive(path string, about *uncloudv1.StoreBackup, content io.Reader) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	sum := sha256.New()
	_, err = io.Copy(io.MultiWriter(f, sum), io.LimitReader(content, about.GetBytes()+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("receive the backup: %w", err)
	}
	if hex.EncodeToString(sum.Sum(nil)) != about.GetSha256() {
		return faults.New(faults.Invalid, "what arrived is not the backup that was announced: its checksum is another").
			WithHint("try again; if it stays so the file is damaged: use another backup")
	}
	text, err := json.Marshal(store.BackupInfo{
		SHA256: about.GetSha256(), Bytes: about.GetBytes(), Schema: int(about.GetSchema()), CreatedAt: about.GetCreatedAt().AsTime(),
	})
	if err != nil {
		return err
	}
	return os.WriteFile(path+".json", text, 0o600)
}

// stage opens a copy of the backup in dir, so that what cannot become a store
// is found out while the old one is in place.
func stage(ctx context.Context, dir, backup string) (state *spec.State, err error) {
	place := filepath.Join(dir, storeDir)
	if err := store.Restore(ctx, place, backup); err != nil {
		return nil, err
	}
	s, err := store.Open(ctx, store.Options{Dir: place})
	if err != nil {
		return nil, unfit(err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	report, err := s.Check(ctx)
	switch {
	case err != nil:
		return nil, unfit(err)
	case len(report.Problems) > 0:
		return nil, unfit(errors.New(strings.Join(report.Problems, "; ")))
	case s.State().Cluster.ClusterID == "":
		return nil, unfit(errors.New("it holds no cluster"))
	}
	return s.State(), nil
}

// unfit is why a file with the right checksum cannot become a store.
func unfit(err error) error {
	switch faults.CodeOf(err) {
	case faults.Conflict:
		return faults.New(faults.Conflict, "the backup is newer than this agent: %w", err).WithHint("upgrade the agent of this machine first; see what it is: uc version")
	case faults.Internal:
		return faults.New(faults.Invalid, "the file is no backup of a store that can be used").WithHint("use another one; they are made with: uc store backup FILE").Because(err)
	}
	return err
}

// fits tells whether a machine can go on with a state.
func fits(state *spec.State, id Identity) error {
	if theirs := state.Cluster.ClusterID; theirs != id.ClusterID {
		return faults.New(faults.Conflict, "the backup is of cluster %s, and this machine belongs to %s", theirs, id.ClusterID).
			WithHint("to take the services of the other cluster into this one: uc store restore --adopt FILE")
	}
	if _, ok := state.Machines[id.MachineID]; !ok {
		return faults.New(faults.Conflict, "the backup does not know this machine: it is older than its membership").
			WithHint("restore it on a machine that was a member then, or only take in what the cluster lacks: uc store restore --adopt FILE")
	}
	return nil
}

// replaceStore ends the member, and returns the one that goes on with the
// backup. When it fails the machine goes on with the store that it had.
func (a *Agent) replaceStore(ctx context.Context, m *member, backup string) (*member, error) {
	r := &restoration{backup: backup, made: make(chan *member, 1), failed: make(chan error, 1)}
	if m.leaving.Load() || !m.restoring.CompareAndSwap(nil, r) {
		return nil, faults.New(faults.Conflict, "this machine leaves its cluster").WithHint("see what it is: uc machine ls")
	}
	m.log.Info("store is replaced by a backup")
	m.end()
	// From here on the agent's life decides, and not who asked.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), replaceWithin)
	defer cancel()
	select {
	case next := <-r.made:
		return next, <-r.failed
	case <-ctx.Done():
		return nil, faults.New(faults.Internal, "the agent did not come back with the backup").WithHint("see why: journalctl -u uncloud")
	}
}

// restoreInto puts the backup in place of the store in dir. Whatever comes of
// it, the machine asks the others before it acts on what it has.
func restoreInto(ctx context.Context, dir, backup string) error {
	if err := writePast(dir, pastRestored); err != nil {
		return err
	}
	err := store.Restore(ctx, dir, backup)
	if faults.CodeOf(err) == faults.Conflict {
		return faults.New(faults.Conflict, "the agent of this machine runs").
			WithHint("let it restore: uc store restore %s; or stop it: systemctl stop uncloud", backup).Because(err)
	}
	return err
}

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/types/known/timestamppb"

	uncloudv1 "uncloud/api/uncloud/v1"
)

// scratchDir holds backups that are on their way out or in. What an agent that
// was cut off left there goes when the next one starts.
const scratchDir = "scratch"

// scratch makes a folder for one backup, and what removes it.
func scratch(stateDir string) (dir string, remove func() error, err error) {
	all := filepath.Join(stateDir, scratchDir)
	if err := os.MkdirAll(all, 0o700); err != nil {
		return "", nil, fmt.Errorf("make %s: %w", all, err)
	}
	dir, err = os.MkdirTemp(all, "backup-*")
	if err != nil {
		return "", nil, fmt.Errorf("make a folder for a backup: %w", err)
	}
	return dir, func() error { return os.RemoveAll(dir) }, nil
}

// storeCare is the store as a person looks after it.
type storeCare struct{ m *member }

// Check reads the whole database.
func (s storeCare) Check(ctx context.Context) (*uncloudv1.CheckStoreResponse, error) {
	r, err := s.m.store.Check(ctx)
	if err != nil {
		return nil, err
	}
	return &uncloudv1.CheckStoreResponse{Rows: int64(r.Rows), Tombstones: int64(r.Tombstones), Problems: r.Problems}, nil
}

// Backup copies the store to this machine's disk first: a copy that waited for
// whoever reads it would hold the database's log.
func (s storeCare) Backup(ctx context.Context) (*uncloudv1.StoreBackup, io.ReadCloser, error) {
	dir, remove, err := scratch(s.m.cfg.StateDir)
	if err != nil {
		return nil, nil, err
	}
	path := filepath.Join(dir, "backup")
	info, err := s.m.store.Backup(ctx, path)
	if err != nil {
		return nil, nil, errors.Join(err, remove())
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, errors.Join(err, remove())
	}
	s.m.log.Info("backup made", "bytes", info.Bytes, "digest", info.SHA256)
	return &uncloudv1.StoreBackup{
		Sha256: info.SHA256, Bytes: info.Bytes, Schema: int32(info.Schema), CreatedAt: timestamppb.New(info.CreatedAt), //nolint:gosec // a small number
		ClusterId: s.m.id.ClusterID, Machine: s.m.store.State().MachineName(s.m.id.MachineID),
	}, removing{f, remove}, nil
}

// removing is a file that takes its folder along when it is closed.
type removing struct {
	*os.File
	remove func() error
}

func (r removing) Close() error { return errors.Join(r.File.Close(), r.remove()) }

// Status tells how far the store is.
func (s storeCare) Status(ctx context.Context) (*uncloudv1.StoreStatusResponse, error) {
	m := s.m
	digest, err := m.store.Digest(ctx)
	if err != nil {
		return nil, fmt.Errorf("digest of the store: %w", err)
	}
	st, state := m.store.Status(), m.store.State()
	done := m.sync.Counters()
	out := &uncloudv1.StoreStatusResponse{
		Site: st.Site.String(), Quarantined: int64(st.Unreadable) + int64(st.Quarantined), Size: s.size(), Tombstones: int64(st.Deleted), Digest: digest,
		Repaired: int64(done.Repaired), Spoilt: int64(done.Spoilt), //nolint:gosec // counters
	}
	known := m.store.Known()
	for _, site := range known.Sites() {
		head := known.Head(site)
		out.Sites = append(out.Sites, &uncloudv1.SiteStatus{Site: site.String(), Head: head, Missing: head - known[site].Count()})
	}
	for _, p := range m.sync.Status().Peers {
		msg := &uncloudv1.PeerStatus{
			Machine: state.MachineName(p.Machine), Connected: p.Connected, Queued: int64(p.Queued), Missing: p.Missing, Error: p.Err,
		}
		if !p.Synced.IsZero() {
			msg.LastSync = timestamppb.New(p.Synced)
		}
		out.Peers = append(out.Peers, msg)
	}
	return out, nil
}

// size is how many bytes the database takes on disk; 0 where that cannot be
// told.
func (s storeCare) size() int64 {
	files, err := os.ReadDir(s.m.storeDir())
	if err != nil {
		return 0
	}
	var size int64
	for _, f := range files {
		if info, err := f.Info(); err == nil {
			size += info.Size()
		}
	}
	return size
}

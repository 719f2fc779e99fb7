package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"os"
)

// part is a layer on its way into the spool.
type part struct {
	spool  *spool
	file   *os.File
	digest string
	size   int64 // that it is to have
	got    int64
	hash   hash.Hash
}

func (s *spool) create(l layer) (*part, error) {
	file, err := os.CreateTemp(s.dir, partPrefix+"*")
	if err != nil {
		return nil, explain("store a layer", err)
	}
	return &part{spool: s, file: file, digest: l.digest, size: l.size, hash: sha256.New()}, nil
}

func (p *part) write(chunk []byte) error {
	if err := p.spool.room(int64(len(chunk))); err != nil {
		return err
	}
	if _, err := p.file.Write(chunk); err != nil {
		return explain("store a layer", err)
	}
	p.hash.Write(chunk)
	p.got += int64(len(chunk))
	return nil
}

func (p *part) sum() string { return "sha256:" + hex.EncodeToString(p.hash.Sum(nil)) }

// commit makes a part that is complete a layer of the spool.
func (p *part) commit() error {
	err := errors.Join(p.file.Sync(), p.file.Close())
	if err == nil {
		err = p.spool.add(p)
	}
	if err != nil {
		_ = os.Remove(p.file.Name()) // it is of no use, and gone at the next start
		return explain("store a layer", err)
	}
	return nil
}

func (s *spool) add(p *part) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := os.Rename(p.file.Name(), s.path(p.digest)); err != nil {
		return err
	}
	s.note(p.digest, entry{size: p.size})
	return syncDir(s.dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// abort drops a part that will not be complete.
func (p *part) abort() {
	_ = errors.Join(p.file.Close(), os.Remove(p.file.Name())) // what stays is removed at the next start
}

// verify reads a layer again and tells whether it is what its name says.
func (s *spool) verify(ctx context.Context, l layer) error {
	file, err := s.file(l.digest)
	if err != nil {
		return err
	}
	defer file.Close()
	h := sha256.New()
	n, err := io.Copy(h, reader{ctx.Err, file})
	if err != nil {
		return err
	}
	if sum := "sha256:" + hex.EncodeToString(h.Sum(nil)); sum != l.digest || n != l.size {
		return errors.New("its content is that of " + sum)
	}
	return nil
}

// reader ends when stopped tells an error.
type reader struct {
	stopped func() error
	from    io.Reader
}

func (r reader) Read(b []byte) (int, error) {
	if err := r.stopped(); err != nil {
		return 0, err
	}
	return r.from.Read(b)
}

package images

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"syscall"
	"time"

	"uncloud/agent/internal/runtime"
	"uncloud/internal/faults"
)

// Limits of an image. They are far above what images are, and keep a push from
// filling the memory.
const (
	MaxDocument = 4 << 20 // bytes of a manifest, and of a config
	MaxLayers   = 512
	maxLayer    = 1 << 40 // bytes; keeps sums of sizes far from overflow
)

// Defaults of Options.
const (
	// DefaultMaxBytes bounds what failed pushes leave behind. Larger resumes
	// larger images without sending layers again, and takes that from the disk.
	DefaultMaxBytes = 2 << 30
	// DefaultMaxEntries bounds the layers that are kept or remembered: a
	// remembered one takes an inode.
	DefaultMaxEntries = 4096
	// DefaultMinFree is what pushes leave of the disk to everything else. The
	// engine needs space for its own copies of the layers besides.
	DefaultMinFree = 512 << 20
)

// Engine is what this package needs of a container engine; runtime.Engine has it.
type Engine interface {
	Images(ctx context.Context) ([]runtime.Image, error)
	ImageLayers(ctx context.Context, name string) ([]string, error)
	LoadImage(ctx context.Context, archive io.Reader) ([]string, error)
}

// Options are what a Store is made of. Zero values mean the defaults.
type Options struct {
	Dir        string // absolute; nothing else may write there; made when first needed
	Engine     Engine
	Log        *slog.Logger
	MaxBytes   int64
	MaxEntries int
	MinFree    int64
	// Free tells how many bytes a service may still write on the disk of dir.
	Free func(dir string) (int64, error)
}

// Store takes images in. It is safe for concurrent use, also for pushes of one
// image: each writes its own copy of a layer that none has completed, and all
// but the first to do so discard theirs.
type Store struct {
	log    *slog.Logger
	engine Engine
	spool  *spool
	shelf  shelf
}

// Start announces an image.
type Start struct {
	Name     string // with its tag; a name without a registry is one of localhost
	Manifest []byte // of one platform: OCI, or Docker's schema 2
	Config   []byte
}

// Next returns a piece of what is pushed: the digest of a layer, a chunk of
// its content, or both. A chunk without a digest belongs to the layer that was
// named last. io.EOF ends the push. The chunk is not kept.
type Next func() (digest string, chunk []byte, err error)

// New makes a Store. It does not touch the machine.
func New(o Options) (*Store, error) {
	if !filepath.IsAbs(o.Dir) || o.Engine == nil {
		return nil, errors.New("images: needs an absolute Dir and an Engine")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	if o.MaxEntries == 0 {
		o.MaxEntries = DefaultMaxEntries
	}
	if o.MinFree == 0 {
		o.MinFree = DefaultMinFree
	}
	if o.Free == nil {
		o.Free = free
	}
	return &Store{log: o.Log, engine: o.Engine, spool: newSpool(o), shelf: shelf{engine: o.Engine, log: o.Log}}, nil
}

func free(dir string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * s.Bsize, nil //nolint:gosec,unconvert // the types differ between architectures
}

// Tidy removes what a push left that was cut off with the agent, and what
// exceeds the limits. Without it, the first push does so.
func (s *Store) Tidy() error {
	if err := s.spool.open(); err != nil {
		return err
	}
	s.spool.trim()
	return nil
}

// Present returns those of the digests that need not be sent, in their order.
// They may be of layers as they are sent, of unpacked layers, or of configs.
// What is malformed is not present. The answer is a hint that holds until the
// engine removes an image or another push needs the space.
func (s *Store) Present(ctx context.Context, digests []string) ([]string, error) {
	if err := s.spool.open(); err != nil {
		return nil, err
	}
	onShelf, err := s.shelf.look(ctx)
	if err != nil {
		return nil, err
	}
	var present []string
	for _, d := range digests {
		if validDigest(d) && (onShelf.has(d) || onShelf.ids[d] || s.spool.holds(d) || onShelf.has(s.spool.unpacked(d))) {
			present = append(present, d)
		}
	}
	return present, nil
}

// Receive takes an image in and has the engine know it by its name. It returns
// the image's id (hex, without algorithm) and how many bytes of layers were
// sent. Layers that arrived whole before an error are kept for the next push.
//
// Errors are faults: Invalid for what was sent and for layers that were not,
// DiskFull, Interrupted when next or ctx ended early, and those of the engine.
// Other troubles with the disk are plain errors.
func (s *Store) Receive(ctx context.Context, start Start, next Next) (id string, received int64, err error) {
	began := time.Now()
	img, err := parse(start)
	if err != nil {
		return "", 0, err
	}
	if err := s.spool.open(); err != nil {
		return "", 0, err
	}
	// Errors of the engine are better told before gigabytes are sent.
	if err := s.reserve(ctx, img); err != nil {
		return "", 0, err
	}
	defer s.spool.trim()
	defer s.spool.pin(img.digests())()
	received, err = s.accept(ctx, img, next)
	if err != nil {
		return "", received, err
	}
	if err := s.load(ctx, img); err != nil {
		return "", received, err
	}
	s.log.Info("image arrived", "image", img.name, "bytes", received, "took", time.Since(began).Round(time.Millisecond))
	return img.id, received, nil
}

// reserve refuses an image whose layers that are still to come do not fit on
// the disk.
func (s *Store) reserve(ctx context.Context, img *image) error {
	onShelf, err := s.shelf.look(ctx)
	if err != nil {
		return err
	}
	defer s.spool.pin(img.digests())() // room is not made with what is needed
	var need int64
	for _, l := range img.distinct() {
		if s.source(l, onShelf) == nowhere {
			need += l.size
		}
	}
	return s.spool.room(need)
}

// accept takes in what is sent, until its end.
func (s *Store) accept(ctx context.Context, img *image, next Next) (int64, error) {
	in := intake{spool: s.spool, image: img, layers: img.byDigest()}
	defer in.abort()
	for {
		if ctx.Err() != nil {
			return in.received, img.interrupted(ctx.Err())
		}
		digest, chunk, err := next()
		if errors.Is(err, io.EOF) {
			return in.received, in.finish()
		}
		if err != nil {
			return in.received, img.interrupted(err)
		}
		if err := in.take(digest, chunk); err != nil {
			return in.received, err
		}
	}
}

func (i *image) interrupted(cause error) error {
	return faults.New(faults.Interrupted, "the push of %s was interrupted", i.name).
		WithHint("push again: layers that arrived whole are not sent twice").Because(cause)
}

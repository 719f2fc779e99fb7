package images

import (
	"context"
	"log/slog"
	"sync"

	"uncloud/agent/internal/runtime"
	"uncloud/internal/faults"
)

// shelf is what the engine has.
type shelf struct {
	engine Engine
	log    *slog.Logger

	mu      sync.Mutex
	layers  map[string][]string // of each image by id: what an id stands for never changes
	doubted map[string]bool     // diff ids that the engine tells of and yet could not use
}

// contents are what the engine had at one time.
type contents struct {
	layers map[string]bool // diff ids
	ids    map[string]bool // digests of configs
}

// has tells whether an archive may leave out a layer. The empty diff id is none.
func (c contents) has(diffID string) bool { return c.layers[diffID] }

func (s *shelf) look(ctx context.Context) (contents, error) {
	images, err := s.engine.Images(ctx)
	if err != nil {
		return contents{}, err
	}
	known, err := s.inspect(ctx, images)
	if err != nil {
		return contents{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.layers = known
	c := contents{layers: map[string]bool{}, ids: map[string]bool{}}
	for id, layers := range known {
		c.ids["sha256:"+id] = true
		for _, l := range layers {
			c.layers[l] = !s.doubted[l]
		}
	}
	return c, nil
}

// inspect asks for the layers of images that were not there the last time.
func (s *shelf) inspect(ctx context.Context, images []runtime.Image) (map[string][]string, error) {
	s.mu.Lock()
	before := s.layers
	s.mu.Unlock()
	now := map[string][]string{}
	for _, i := range images {
		layers, ok := before[i.ID]
		if !ok {
			var err error
			layers, err = s.engine.ImageLayers(ctx, i.ID)
			if ctx.Err() != nil {
				return nil, err
			}
			if err != nil {
				s.skipped(i, err)
				continue
			}
		}
		now[i.ID] = layers
	}
	return now, nil
}

// skipped notes an image whose layers the engine does not tell. It was removed
// meanwhile, or it is damaged, which must not keep others from arriving: at
// worst layers are sent that were here.
func (s *shelf) skipped(i runtime.Image, err error) {
	if faults.CodeOf(err) != faults.NoImage {
		s.log.Warn("could not read the layers of an image", "image", i.ID, "err", err)
	}
}

// maxDoubted bounds the memory of doubts. To forget them costs a failed push.
const maxDoubted = 4096

// doubt notes layers that an archive left out and that then did not load. They
// are no longer told to be present, so that the next push sends them.
func (s *shelf) doubt(diffIDs []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.doubted == nil || len(s.doubted)+len(diffIDs) > maxDoubted {
		s.doubted = map[string]bool{}
	}
	for _, d := range diffIDs {
		s.doubted[d] = true
	}
}

// trust ends doubts about layers that the engine loaded.
func (s *shelf) trust(layers []layer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range layers {
		delete(s.doubted, l.diffID)
	}
}

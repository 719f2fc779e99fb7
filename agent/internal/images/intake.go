package images

import (
	"fmt"

	"uncloud/internal/faults"
)

// intake is what one push sends: layer after layer, each in one piece. A layer
// that ended early is dropped, since a push can only begin one from its start.
type intake struct {
	spool    *spool
	image    *image
	layers   map[string]layer
	received int64

	digest string // of the layer under way; empty: none
	part   *part  // nil: its content is here already, and is discarded
}

func (in *intake) take(digest string, chunk []byte) error {
	if digest != "" && digest != in.digest {
		if err := in.finish(); err != nil {
			return err
		}
		if err := in.begin(digest); err != nil {
			return err
		}
	}
	if len(chunk) == 0 {
		return nil
	}
	if in.digest == "" {
		return invalid("image %s was sent wrongly: content came before its digest", in.image.name)
	}
	in.received += int64(len(chunk))
	if in.part != nil && in.spool.holds(in.digest) {
		in.abort() // another push was faster
	}
	if in.part == nil {
		return nil
	}
	if in.part.got+int64(len(chunk)) > in.part.size {
		return in.damaged("is longer than the %d bytes of the manifest", in.part.size)
	}
	return in.part.write(chunk)
}

func (in *intake) begin(digest string) error {
	l, ok := in.layers[digest]
	if !ok {
		return invalid("%.80q was sent, which is no layer of image %s", digest, in.image.name)
	}
	in.digest = digest
	if in.spool.holds(digest) {
		return nil
	}
	var err error
	in.part, err = in.spool.create(l)
	return err
}

// finish makes the layer under way, if there is one, part of the spool.
func (in *intake) finish() error {
	in.digest = ""
	p := in.part
	if p == nil {
		return nil
	}
	switch {
	case p.got < p.size:
		return in.damaged("ended after %d of %d bytes", p.got, p.size)
	case p.sum() != p.digest:
		return in.damaged("has the content of %s", short(p.sum()))
	}
	in.part = nil
	return p.commit()
}

func (in *intake) damaged(format string, args ...any) *faults.Fault {
	return invalid("layer %s of image %s arrived damaged: it %s", short(in.part.digest), in.image.name, fmt.Sprintf(format, args...)).
		WithHint("push again: uc image push %s", in.image.name)
}

func (in *intake) abort() {
	if in.part != nil {
		in.part.abort()
		in.part = nil
	}
}

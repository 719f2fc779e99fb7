package hostos

import (
	"context"
	"errors"
	"io/fs"
)

// Client is the agent's side: it orders, and reads how far the attempt is.
type Client struct {
	files files
	os    NixOS
}

// NewClient makes a Client of the machine whose files are below root.
func NewClient(root, dir string) *Client {
	return &Client{files: files{dir}, os: NixOS{Root: root, Dir: dir}}
}

// Is tells whether the host is NixOS.
func (c *Client) Is() bool { return c.os.Is() }

// Generations are those of the machine, the oldest first.
func (c *Client) Generations() ([]Info, error) { return c.os.Generations() }

// Order makes an order durable. It replaces the former one of the same attempt.
func (c *Client) Order(o Order) error { return c.files.saveOrder(o) }

// Ordered is what is ordered of an attempt.
func (c *Client) Ordered(id string) (o Order, known bool, err error) {
	known, err = readJSON(c.files.order(id), &o)
	return o, known, err
}

// Attempt is the journal of the last attempt; the zero Attempt where there was none.
func (c *Client) Attempt() (Attempt, error) {
	a, err := c.files.attempt()
	if errors.Is(err, fs.ErrNotExist) {
		return Attempt{}, nil
	}
	return a, err
}

// Watch sends on wake when the journal changes, until ctx ends.
func (c *Client) Watch(ctx context.Context, wake chan<- struct{}) error {
	return c.files.watch(ctx, wake)
}

package hostos

import (
	"context"
)

// Client is the agent's side: it orders, and reads how far the attempt is.
type Client struct {
	files desk
	os    system
}

// system is what a client reads of the machine itself.
type system interface {
	Is() bool
	Generations() ([]Info, error)
}

// NewClient makes a Client of the machine whose files are below root.
func NewClient(root, dir string) *Client {
	return &Client{files: files{dir}, os: NixOS{Root: root, Dir: dir}}
}

// Is tells whether the host is NixOS.
func (c *Client) Is() bool { return c.os.Is() }

// Generations are those of the machine, the oldest first. What runs and is none
// of them, because a person tried it, is the last, with number 0.
func (c *Client) Generations() ([]Info, error) { return c.os.Generations() }

// Order makes an order durable. It replaces the former one of the same attempt.
func (c *Client) Order(o Order) error { return c.files.saveOrder(o) }

// Ordered is what is ordered of an attempt.
func (c *Client) Ordered(id string) (o Order, known bool, err error) { return c.files.orderOf(id) }

// Attempt is the journal of the last attempt; the zero Attempt where there was none.
func (c *Client) Attempt() (Attempt, error) { return c.files.attempt() }

// Watch sends on wake when the journal changes, until ctx ends.
func (c *Client) Watch(ctx context.Context, wake chan<- struct{}) error {
	return c.files.watch(ctx, wake)
}

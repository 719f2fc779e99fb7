package firewall

import (
	"context"
)

// Capabilities are what this machine's nft and kernel can do together.
type Capabilities struct {
	// Persistent: a table may have the flags owner and persist, so a reload
	// of the machine's own firewall passes it by. Linux 6.9 and nft 1.1.0.
	Persistent bool
	// Destroy: a table can be removed whether it is there or not. Linux 6.3
	// and nft 1.0.7.
	Destroy bool
}

// probe asks nft to check, without doing, what it may not know. A refusal is
// an answer and no error.
func probe(ctx context.Context, nft string) Capabilities {
	can := func(statement string) bool {
		_, err := run(ctx, nft, "--check", statement)
		return err == nil
	}
	return Capabilities{
		Persistent: can("table inet " + Table + "_probe { " + ownedFlags + "; }"),
		Destroy:    can("destroy table inet " + Table + "_probe"),
	}
}

// replace is the transaction that puts r in the place of whatever table is
// there. Adoption of a predecessor's table and every later change are alike:
// without the removal the rules would double.
func (c Capabilities) replace(r Ruleset) string { return c.remove() + "; " + r.line(c.Persistent) }

func (c Capabilities) remove() string {
	if c.Destroy {
		return "destroy table inet " + Table
	}
	return "add table inet " + Table + "; delete table inet " + Table
}

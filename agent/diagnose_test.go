package agent

import (
	"context"
	"errors"
	"slices"
	"testing"

	"uncloud/agent/internal/firewall"
	"uncloud/agent/internal/server"
)

func TestTheOwnFirewallIsReadWhenARuleHasChanged(t *testing.T) {
	generation, reads := uint32(7), 0
	var fails error
	notes := []firewall.Note{{Code: "firewall.input-drop", Text: "it drops", Hint: "nft insert rule"}}
	wall := hostWall{
		generation: func() (uint32, error) { return generation, nil },
		read:       func(context.Context) ([]firewall.Note, error) { reads++; return notes, fails },
	}
	look := func(wantNews bool, wantReads int, want ...server.Note) {
		t.Helper()
		got, news, err := wall.look(t.Context())
		if !errors.Is(err, fails) || news != wantNews || reads != wantReads || !slices.Equal(got, want) {
			t.Errorf("%v, %v, %v after %d reads, want %v, %v after %d", got, news, err, reads, want, wantNews, wantReads)
		}
	}
	told := server.Note{Code: "firewall.input-drop", Text: "it drops", Hint: "nft insert rule"}
	look(true, 1, told)
	look(false, 1)
	generation++
	fails = errors.New("no nft")
	look(false, 2)
	fails = nil
	look(true, 3, told) // what could not be read is still news
	generation, notes = 0, nil
	look(true, 4) // it is over
	look(false, 4)
}

func TestAKernelThatDoesNotTellIsNotAskedForRules(t *testing.T) {
	dumb := errors.New("no nftables")
	wall := hostWall{generation: func() (uint32, error) { return 0, dumb }}
	if _, news, err := wall.look(t.Context()); news || !errors.Is(err, dumb) {
		t.Errorf("%v, %v", news, err)
	}
}

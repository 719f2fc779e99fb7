package firstboot

import (
	"errors"
	"fmt"
	"strings"
)

// Trouble is one thing that is wrong with a file. Text is a clause without
// capital and full stop, and never holds a secret.
type Trouble struct {
	Line int    // from 1; 0 is the whole file
	Key  string // empty where there is none
	Text string
}

func (t Trouble) String() string {
	switch {
	case t.Line == 0:
		return t.Text
	case t.Key == "":
		return fmt.Sprintf("line %d: %s", t.Line, t.Text)
	}
	return fmt.Sprintf("line %d, %s: %s", t.Line, t.Key, t.Text)
}

// mostTroubles bounds what is said of one file: one that is something else
// altogether has a trouble in each line.
const mostTroubles = 8

// Parse reads the content of uncloud.txt, or of a bare ticket. Where it
// returns troubles, nothing of the file may be taken.
func Parse(content []byte, checks Checks) (Settings, []Trouble) {
	text, err := decode(content)
	if err != nil {
		return Settings{}, []Trouble{{Text: err.Error()}}
	}
	p := parser{checks: checks, at: map[string]int{}}
	for i, line := range linesOf(text) {
		p.line(i+1, line)
	}
	p.together()
	if len(p.troubles) == 0 && len(p.at) == 0 {
		p.troubles = []Trouble{{Text: "there is nothing in it but comments: write at least one line such as name = pi-1"}}
	}
	if len(p.troubles) > 0 {
		return Settings{}, p.troubles[:min(len(p.troubles), mostTroubles)]
	}
	return p.settings, nil
}

// about reads of a file that is refused who it is about, where it says so.
func about(content []byte, checks Checks) Refused {
	text, err := decode(content)
	if err != nil {
		return Refused{}
	}
	p := parser{checks: checks, at: map[string]int{}}
	for i, line := range linesOf(text) {
		p.line(i+1, line)
	}
	return Refused{Name: p.settings.Name, Ticket: p.settings.Ticket}
}

type parser struct {
	checks   Checks
	settings Settings
	at       map[string]int // the last line of each key that is there
	awaited  int            // the line that says that the ticket follows, until it does
	troubles []Trouble
}

func (p *parser) refuse(line int, key string, err error) {
	p.troubles = append(p.troubles, Trouble{Line: line, Key: key, Text: err.Error()})
}

func (p *parser) line(number int, line string) {
	if err := checkLine(line); err != nil {
		p.refuse(number, "", err)
		return
	}
	name, value, ok := split(line)
	if name == "" && !ok {
		return
	}
	if !ok {
		p.refuse(number, "", fmt.Errorf(`there is no "=": write KEY = VALUE, and a value in one line`))
		return
	}
	k, known := keys[name]
	if !known {
		p.refuse(number, "", unknownKey(name))
		return
	}
	if first, twice := p.at[name]; twice && !k.many {
		p.refuse(number, name, fmt.Errorf("it is in line %d already, and may be there once", first))
		return
	}
	if plain, _ := withoutComment(value); name == "ticket" && plain == "" {
		// A ticket file that was pasted here begins with a comment.
		p.awaited = number
		return
	}
	p.at[name] = number
	if err := p.value(k, value); err != nil {
		p.refuse(number, name, err)
	}
}

// split parts a line into key and value. A ticket may stand alone. Both are
// empty for a line with nothing to read.
func split(line string) (name, value string, ok bool) {
	line = strings.TrimSpace(line)
	if line == "" || strings.HasPrefix(line, "#") {
		return "", "", false
	}
	if strings.HasPrefix(line, ticketHead) {
		return "ticket", line, true
	}
	name, value, ok = strings.Cut(line, "=")
	return strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value), ok
}

const ticketHead = "uncloud-ticket-"

var errNoValue = errors.New("it has no value: give it one, or remove the line")

func (p *parser) value(k key, value string) error {
	plain, commented := withoutComment(value)
	if commented && k.secret {
		return fmt.Errorf(`" #" could begin a comment or be part of the value: put a comment on a line of its own`)
	}
	if plain == "" {
		return errNoValue
	}
	if isQuoted(plain) {
		return fmt.Errorf("write the value without quotes")
	}
	return k.read(&p.settings, plain, p.checks)
}

// together checks what is right or wrong only beside other keys.
func (p *parser) together() {
	s := p.settings
	if p.awaited > 0 && p.at["ticket"] == 0 {
		p.refuse(p.awaited, "ticket", errNoValue)
	}
	for _, key := range []string{"gateway", "dns"} {
		if line, there := p.at[key]; there && p.at["address"] == 0 {
			p.refuse(line, key, fmt.Errorf("it goes with an address: write address = 192.168.1.10/24, or address = dhcp, too"))
		}
	}
	line := p.at["gateway"]
	switch {
	case !s.Gateway.IsValid():
	case s.DHCP:
		p.refuse(line, "gateway", fmt.Errorf("with address = dhcp it comes by DHCP too: remove the line"))
	case s.Address.IsValid() && s.Gateway == s.Address.Addr():
		p.refuse(line, "gateway", fmt.Errorf("%s is the machine's own address", s.Gateway))
	case s.Address.IsValid() && !s.Address.Contains(s.Gateway) && !s.Gateway.IsLinkLocalUnicast():
		p.refuse(line, "gateway", fmt.Errorf("%s is not in the network of the address, %s", s.Gateway, s.Address.Masked()))
	}
}

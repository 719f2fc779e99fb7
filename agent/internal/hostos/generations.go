package hostos

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Info is a generation as people see it.
type Info struct {
	Generation
	NixOS   string    // version of NixOS
	Made    time.Time // when
	Current bool      // runs
	Booted  bool
	Default bool // what the machine boots next
}

// Is tells whether the host is NixOS.
func (n NixOS) Is() bool {
	_, err := os.Stat(n.path("/etc/NIXOS"))
	return err == nil
}

// Generations are those of the profile, the oldest first. What runs and is none
// of them, because a person tried it, is the last, with number 0.
func (n NixOS) Generations() ([]Info, error) {
	numbers, err := n.numbers()
	if err != nil {
		return nil, err
	}
	var all []Info
	for _, number := range numbers {
		g, err := n.info(number)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was deleted while this looked
		}
		if err != nil {
			return nil, err
		}
		all = append(all, g)
	}
	return n.mark(all)
}

// numbers are those of the profile's generations, the lowest first.
func (n NixOS) numbers() ([]int, error) {
	links, err := filepath.Glob(n.path(profile + "-*-link"))
	if err != nil {
		return nil, err
	}
	var all []int
	for _, link := range links {
		if number, ok := numberOf(link); ok {
			all = append(all, number)
		}
	}
	slices.Sort(all)
	return all, nil
}

// newest is the highest number; 0 where there are no generations.
func (n NixOS) newest() (int, error) {
	all, err := n.numbers()
	if err != nil || len(all) == 0 {
		return 0, err
	}
	return all[len(all)-1], nil
}

func numberOf(link string) (int, bool) {
	base, ok := strings.CutPrefix(filepath.Base(link), filepath.Base(profile)+"-")
	base, linked := strings.CutSuffix(base, "-link")
	number, err := strconv.Atoi(base)
	return number, ok && linked && err == nil
}

func generationLink(number int) string { return fmt.Sprintf("%s-%d-link", profile, number) }

func (n NixOS) info(number int) (g Info, err error) {
	g.Number = number
	link := generationLink(number)
	if g.System, err = n.follow(link); err != nil {
		return g, err
	}
	at, err := os.Lstat(n.path(link))
	if err != nil {
		return g, err
	}
	g.Made, g.NixOS = at.ModTime(), n.version(g.System)
	return g, nil
}

// version is what a system calls itself; empty where it does not.
func (n NixOS) version(system string) string {
	text, err := os.ReadFile(n.path(filepath.Join(system, "nixos-version")))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// mark says which generations run, were booted and are the default. Of several
// with one system it is the default one, or else the newest.
func (n NixOS) mark(all []Info) ([]Info, error) {
	current, err := n.follow(currentLink)
	if err != nil {
		return nil, err
	}
	booted, err := n.booted()
	if err != nil {
		return nil, err
	}
	standard, err := n.defaultGeneration()
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(all, func(g Info) bool { return g.Number == standard.Number }); i >= 0 {
		all[i].Default = true
	}
	if i := best(all, current); i >= 0 {
		all[i].Current = true
	} else {
		all = append(all, Info{Generation: Generation{System: current}, NixOS: n.version(current), Current: true, Booted: booted == current})
	}
	if i := best(all, booted); i >= 0 {
		all[i].Booted = true
	}
	return all, nil
}

// best is the generation that a system is taken for, or -1.
func best(all []Info, system string) int {
	found := -1
	for i, g := range all {
		if g.System == system && (found < 0 || !all[found].Default) {
			found = i
		}
	}
	return found
}

// defaultGeneration is what the profile leads to; none where there is none.
func (n NixOS) defaultGeneration() (g Generation, err error) {
	to, err := os.Readlink(n.path(profile))
	if errors.Is(err, fs.ErrNotExist) {
		return g, nil
	}
	if err != nil {
		return g, err
	}
	g.Number, _ = numberOf(to)
	g.System, err = n.follow(profile)
	return g, err
}

// Before is the generation to go back to: the newest below the one that runs.
func Before(all []Info) (Info, bool) {
	var before Info
	running := slices.IndexFunc(all, func(g Info) bool { return g.Current })
	if running < 0 {
		return before, false
	}
	for _, g := range all {
		below := g.Number != 0 && (all[running].Number == 0 || g.Number < all[running].Number)
		if below && g.System != all[running].System {
			before = g
		}
	}
	return before, before.Number != 0
}

// Summary says in a few words which generation runs, and what is to be known
// of the next boot: "12 (booted)", "13 (booted 12)", "12 (booted, next 13)".
func Summary(all []Info) string {
	var current, booted, next Info
	for _, g := range all {
		if g.Current {
			current = g
		}
		if g.Booted {
			booted = g
		}
		if g.Default {
			next = g
		}
	}
	note := "booted"
	switch {
	case booted.System == "": // a container, or its generation was deleted
		note = "not booted"
	case booted.System != current.System:
		note = "booted " + number(booted)
	}
	if next.System != current.System {
		note += ", next " + number(next)
	}
	return number(current) + " (" + note + ")"
}

func number(g Info) string {
	if g.Number == 0 {
		return "none"
	}
	return strconv.Itoa(g.Number)
}

package main

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// The words of the lab are stable: other people's tests use them.
func TestWordsOfTheLab(t *testing.T) {
	for line, want := range map[string]struct {
		args  []string
		flags map[string]string
	}{
		"up":                                {},
		"up 5 --bare":                       {[]string{"5"}, map[string]string{"bare": ""}},
		"up --name mine 5":                  {[]string{"5"}, map[string]string{"name": "mine"}},
		"up --name=mine":                    {nil, map[string]string{"name": "mine"}},
		"exec m1 -- uc ls -o json":          {[]string{"m1", "uc", "ls", "-o", "json"}, nil},
		"exec m1 uc ls --name x":            {[]string{"m1", "uc", "ls", "--name", "x"}, nil},
		"exec m1 --name x -- uc -- ls":      {[]string{"m1", "uc", "--", "ls"}, map[string]string{"name": "x"}},
		"exec --name x m1 uc":               {[]string{"m1", "uc"}, map[string]string{"name": "x"}},
		"cut --pair m1 m2":                  {[]string{"m1", "m2"}, map[string]string{"pair": ""}},
		"cut m1 m2 --name x":                {[]string{"m1", "m2"}, map[string]string{"name": "x"}},
		"image dir name:1 --on m2":          {[]string{"dir", "name:1"}, map[string]string{"on": "m2"}},
		"ls -o json":                        {nil, map[string]string{"output": "json"}},
		"ls --output=json":                  {nil, map[string]string{"output": "json"}},
		"cp m1:/etc/hosts /tmp --name mine": {[]string{"m1:/etc/hosts", "/tmp"}, map[string]string{"name": "mine"}},
	} {
		words := strings.Fields(line)
		c, err := parse(words[0], verbs[words[0]].flags, words[1:])
		if err != nil || !slices.Equal(c.args, want.args) || !maps.Equal(c.flags, want.flags) {
			t.Errorf("%s: arguments %q, flags %v, %v", line, c.args, c.flags, err)
		}
	}
}

func TestWrongWordsAreRefused(t *testing.T) {
	for _, line := range []string{"up --frob", "ls --bare", "up --name", "heal --on m1", "up --name UPPER", "frobnicate", "exec m1", "cp one", "up m1", "heal m1"} {
		if err := run(t.Context(), strings.Fields(line)); err == nil {
			t.Errorf("%s: no error", line)
		}
	}
}

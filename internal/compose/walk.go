package compose

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// branch is a node of the table as a tree.
type branch struct {
	key   *key // nil between rows
	below map[string]*branch
}

var root = sync.OnceValue(func() *branch {
	top := &branch{}
	for i := range keys {
		at := top
		for _, step := range strings.Split(keys[i].path, ".") {
			if at.below == nil {
				at.below = map[string]*branch{}
			}
			if at.below[step] == nil {
				at.below[step] = &branch{}
			}
			at = at.below[step]
		}
		at.key = &keys[i]
	}
	return top
})

// step is the branch for a name below b, or nil where the table has none.
func (b *branch) step(name string) *branch {
	if next := b.below[name]; next != nil {
		return next
	}
	if strings.HasPrefix(name, "x-") {
		return b.below["x-*"]
	}
	return b.below["*"]
}

// walk refuses every key of tree that the table does not map or accept.
func (c *converter) walk(tree map[string]any) { c.walkBelow(root(), nil, tree) }

func (c *converter) walkBelow(b *branch, path []string, value any) {
	switch value := value.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(value)) {
			c.walkKey(b.step(name), slices.Concat(path, []string{name}), value[name])
		}
	case []any:
		for i, item := range value {
			if next := b.below["[]"]; next != nil {
				c.walkBelow(next, slices.Concat(path, []string{strconv.Itoa(i)}), item)
			}
		}
	}
}

func (c *converter) walkKey(b *branch, path []string, value any) {
	switch {
	case b == nil:
		c.refuse(path, didYouMean(path), "%s is not supported", title(path))
	case b.key != nil && (b.key.verdict == refused || b.key.verdict == absent) && value != nil:
		c.refuse(path, b.key.note, "%s is not supported", title(path))
	case len(b.below) > 0:
		c.walkBelow(b, path, value)
	}
}

func didYouMean(path []string) string {
	if near := similar(path); near != "" {
		return "did you mean " + near + "?"
	}
	if strings.HasPrefix(path[len(path)-1], "x-") {
		return "remove it; x- keys of other programs may stand at the top of the file"
	}
	return "remove it"
}

// similar is the known sibling of the last step of path that differs from it
// by one or two letters, or "".
func similar(path []string) string {
	b := root()
	for _, step := range path[:len(path)-1] {
		if _, err := strconv.Atoi(step); err == nil {
			step = "[]"
		}
		if b = b.step(step); b == nil {
			return ""
		}
	}
	last, best, least := path[len(path)-1], "", 3
	for _, name := range slices.Sorted(maps.Keys(b.below)) {
		if d := distance(last, name); d < least && d < len(last)/2 {
			best, least = name, d
		}
	}
	return best
}

// distance is the number of letters to insert, remove or change.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}

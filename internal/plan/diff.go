package plan

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"uncloud/internal/spec"
)

// hidden are fields whose values may be secrets: only that they changed is told.
var hidden = []string{"container.env.", "container.files", "volumes."}

// shown are names that people know better than those of the fields.
var shown = strings.NewReplacer(
	"container.mounts", "volumes", "container.env.", "env ", "container.files", "configs",
	"container.", "", "placement.", "placement ", "update.", "update ", "health.", "health check ",
)

// Differences are the lines that tell how two specs of a service differ, one
// for each field, sorted by field with the image first. They walk the
// canonical JSON, so that no field can be forgotten. Values that may be
// secrets are not shown. The number of replicas is not part of it.
func Differences(before, after spec.ServiceSpec) []string {
	before.Replicas, after.Replicas = 0, 0
	a, b := flat(before), flat(after)
	var lines []string
	for _, path := range union(a, b) {
		if a[path] != b[path] {
			lines = append(lines, line(path, a[path], b[path]))
		}
	}
	return lines
}

func line(path, before, after string) string {
	name := shown.Replace(path)
	if slices.ContainsFunc(hidden, func(h string) bool { return strings.HasPrefix(path, h) }) {
		switch {
		case before == "":
			return name + " added"
		case after == "":
			return name + " removed"
		}
		return name + " changed"
	}
	return fmt.Sprintf("%s %s -> %s", name, orNone(before), orNone(after))
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// union are the paths of both, the image first.
func union(a, b map[string]string) []string {
	const image = "container.image"
	var paths []string
	for p := range a {
		paths = append(paths, p)
	}
	for p := range b {
		if _, ok := a[p]; !ok {
			paths = append(paths, p)
		}
	}
	slices.SortFunc(paths, func(x, y string) int {
		if (x == image) != (y == image) {
			if x == image {
				return -1
			}
			return 1
		}
		return strings.Compare(x, y)
	})
	return paths
}

// flat is a spec as path -> text. Lists are one value each, except ports and
// volumes, whose elements are told apart by what they are about.
func flat(sp spec.ServiceSpec) map[string]string {
	out := map[string]string{}
	for _, p := range sp.Ports {
		out["port "+p.String()] = fmt.Sprintf("container port %d", p.Container)
	}
	for _, v := range sp.Volumes {
		out["volumes."+v.Name] = string(spec.Canonical(v))
	}
	for _, f := range sp.Container.Files {
		out["container.files "+f.Target] = string(spec.Canonical(f))
	}
	sp.Ports, sp.Volumes, sp.Container.Files = nil, nil, nil
	var tree map[string]any
	if err := json.Unmarshal(spec.Canonical(sp), &tree); err != nil {
		panic("plan: a spec's own JSON does not parse: " + err.Error())
	}
	flatten(out, "", tree)
	return out
}

func flatten(out map[string]string, path string, v any) {
	tree, ok := v.(map[string]any)
	if !ok || len(tree) == 0 && path != "" {
		out[path] = plain(v)
		return
	}
	for k, child := range tree {
		if path == "" {
			flatten(out, k, child)
		} else {
			flatten(out, path+"."+k, child)
		}
	}
}

// plain is a value as people write it: text without quotes, lists of text as a
// command line, the rest as JSON.
func plain(v any) string {
	switch v := v.(type) {
	case string:
		if v == "" {
			return `""`
		}
		return v
	case []any:
		words := make([]string, len(v))
		for i, w := range v {
			text, ok := w.(string)
			if !ok {
				return string(spec.Canonical(v))
			}
			if text == "" || strings.ContainsAny(text, " \t\n") {
				text = strconv.Quote(text)
			}
			words[i] = text
		}
		return strings.Join(words, " ")
	}
	return string(spec.Canonical(v))
}

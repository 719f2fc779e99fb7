package compose

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"uncloud/internal/faults"
)

// sources are the parsed files, kept for one question: where was this written?
type sources struct {
	dir    string   // names of files are shown relative to it
	files  []string // those that were asked for
	docs   []document
	expand func(text string) string // fills variables in
}

type document struct {
	file string
	root *yaml.Node
}

// add parses a file and, for their lines, the files that it includes or
// extends. What does not parse here is left for the parser proper to report.
func (s *sources) add(file string, content []byte) {
	for _, d := range s.docs {
		if d.file == file {
			return
		}
	}
	dec := yaml.NewDecoder(bytes.NewReader(content))
	for {
		var root yaml.Node
		if err := dec.Decode(&root); err != nil {
			return
		}
		s.docs = append(s.docs, document{file, &root})
		for _, path := range referred(&root) {
			if !filepath.IsAbs(path) {
				path = filepath.Join(filepath.Dir(file), path)
			}
			if more, err := os.ReadFile(path); err == nil {
				s.add(path, more)
			}
		}
	}
}

// referred is the paths in include and in the extends of each service.
func referred(root *yaml.Node) []string {
	var out []string
	take := func(n *yaml.Node) {
		switch {
		case n == nil:
		case n.Kind == yaml.ScalarNode:
			out = append(out, n.Value)
		case n.Kind == yaml.SequenceNode:
			for _, item := range n.Content {
				out = append(out, item.Value)
			}
		}
	}
	if include := child(root, "include"); include != nil {
		for _, item := range include.Content {
			if item.Kind == yaml.MappingNode {
				item = child(item, "path")
			}
			take(item)
		}
	}
	if services := child(root, "services"); services != nil && services.Kind == yaml.MappingNode {
		for i := 1; i < len(services.Content); i += 2 {
			take(child(child(services.Content[i], "extends"), "file"))
		}
	}
	return out
}

// child is the value of a key of a mapping, also through << and aliases.
func child(n *yaml.Node, key string) *yaml.Node {
	_, value := entry(n, key)
	return value
}

func entry(n *yaml.Node, key string) (k, v *yaml.Node) {
	n = follow(n)
	if n == nil || n.Kind != yaml.MappingNode {
		return nil, nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i], n.Content[i+1]
		}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Tag != "!!merge" {
			continue
		}
		merged := []*yaml.Node{n.Content[i+1]}
		if merged[0].Kind == yaml.SequenceNode {
			merged = merged[0].Content
		}
		for _, m := range merged {
			if k, v := entry(m, key); k != nil {
				return k, v
			}
		}
	}
	return nil, nil
}

// follow is n without the wrapping of documents and aliases.
func follow(n *yaml.Node) *yaml.Node {
	for n != nil {
		switch {
		case n.Kind == yaml.AliasNode:
			n = n.Alias
		case n.Kind == yaml.DocumentNode && len(n.Content) > 0:
			n = n.Content[0]
		default:
			return n
		}
	}
	return nil
}

// place is a line of a file; the zero place is nowhere.
type place struct {
	file string
	line int
}

// where is the place of path that was written last, or the nearest one above
// it, or nowhere for a path of which nothing was written.
func (s *sources) where(path []string) place {
	path = s.certain(path)
	best, depth := place{}, 0
	for i := len(s.docs) - 1; i >= 0; i-- {
		if line, found := descend(s.docs[i].root, path); found > depth {
			best, depth = place{s.show(s.docs[i].file), line}, found
		}
	}
	return best
}

// certain is path without an index into a list that several files add to: it
// counts the merged items, and tells nothing about any one file.
func (s *sources) certain(path []string) []string {
	for i, step := range path {
		if _, err := strconv.Atoi(step); err != nil {
			continue
		}
		lists := 0
		for _, d := range s.docs {
			if _, depth := descend(d.root, path[:i]); depth == i {
				lists++
			}
		}
		if lists > 1 {
			return path[:i]
		}
	}
	return path
}

// descend is the line of the deepest part of path that n has, and its depth.
func descend(n *yaml.Node, path []string) (line, depth int) {
	for _, step := range path {
		n = follow(n)
		var at *yaml.Node
		if i, err := strconv.Atoi(step); err == nil && n != nil && n.Kind == yaml.SequenceNode && i < len(n.Content) {
			at, n = n.Content[i], n.Content[i]
		} else {
			at, n = entry(n, step)
		}
		if at == nil {
			return line, depth
		}
		line, depth = at.Line, depth+1
	}
	return line, depth
}

// show is a file's name as the user would write it.
func (s *sources) show(file string) string {
	if rel, err := filepath.Rel(s.dir, file); err == nil && !strings.HasPrefix(rel, "..") {
		return rel
	}
	return file
}

// The parser tells places in its texts only. These are its forms.
var (
	yamlError   = regexp.MustCompile(`(?s)^failed to parse (.+?): .*line (\d+)(?:, column \d+)?: (.*)$`)
	schemaError = regexp.MustCompile(`^validating (.+?): (\S*) (.*)$`)
	valueError  = regexp.MustCompile(`(?s)^(?:error while interpolating|(invalid interpolation) format for) ([^\s:]+?)[.:]?\s(?:.*escape.*\n)?(.*)$`)
	extraKey    = regexp.MustCompile(`additional properties '([^']+)'(?:, '[^']+')* not allowed`)
	pathPrefix  = regexp.MustCompile("(?:^|[ '\"`])((?:services|volumes|configs|networks|secrets)(?:\\.[A-Za-z0-9_\\[\\]-]+)+)")
	namedThing  = regexp.MustCompile(`service "([^"]+)"`)
)

// explain is the parser's error as a Fault that begins with file and line, or
// several of them joined.
func (s *sources) explain(err error) error {
	if f, ok := errors.AsType[*faults.Fault](err); ok {
		return f
	}
	if all := leaves(s.separate(err)); len(all) > 1 {
		for i := range all {
			all[i] = s.explain(all[i])
		}
		return errors.Join(all...)
	} else if len(all) == 1 {
		err = all[0]
	}
	f := s.explainOne(err)
	if f.Hint == "" {
		f = f.WithHint("mend it, then look at the plan: uc deploy --dry-run")
	}
	return f
}

// explainOne is one error of the parser.
func (s *sources) explainOne(err error) *faults.Fault {
	text := strings.TrimSuffix(err.Error(), ": invalid compose project")
	if m := yamlError.FindStringSubmatch(text); m != nil {
		return faults.New(faults.Invalid, "%s:%s: %s", s.show(m[1]), m[2], oneLine(m[3])).Because(err)
	}
	if m := schemaError.FindStringSubmatch(text); m != nil {
		return s.explainSchema(strings.Split(m[2], "."), m[3]).Because(err)
	}
	if m := valueError.FindStringSubmatch(text); m != nil {
		path := steps(m[2])
		if m[1] == "" {
			return s.fault(path, "%s: %s", title(path), oneLine(m[3])).Because(err)
		}
		return s.fault(path, "%s: %s %s", title(path), m[1], oneLine(m[3])).
			WithHint("write $$ for a dollar sign that begins no variable").Because(err)
	}
	text = oneLine(text)
	if m := pathPrefix.FindStringSubmatch(text); m != nil {
		path := steps(m[1])
		if rest, first := strings.CutPrefix(text, m[1]); first {
			text = title(path) + rest
		}
		return s.fault(path, "%s", text).Because(err)
	}
	if m := namedThing.FindStringSubmatch(text); m != nil {
		return s.fault([]string{"services", m[1]}, "%s", text).Because(err)
	}
	return s.explainPlaceless(text).Because(err)
}

// leaves takes joined errors apart, also joins of joins.
func leaves(err error) []error {
	many, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, one := range many.Unwrap() {
		all = append(all, leaves(one)...)
	}
	return all
}

// steps splits the parser's services.web.ports[1].target.
func steps(path string) []string {
	path = strings.ReplaceAll(path, ".[]", "") // an item, but not which
	return strings.Split(strings.NewReplacer(".[", ".", "[", ".", "]", "").Replace(path), ".")
}

// explainSchema names the key that the schema does not know, and the known
// key that looks like it.
func (s *sources) explainSchema(path []string, text string) *faults.Fault {
	full := path
	if m := extraKey.FindStringSubmatch(text); m != nil && path[0] == "" {
		full = []string{m[1]}
	} else if m != nil {
		full = append(path, m[1])
	} else if text != "false schema" { // how it says that a key may not be there
		return s.fault(path, "%s %s", title(path), strings.ReplaceAll(text, "a array", "a list"))
	}
	f := s.fault(full, "%s is not a key of Compose", title(full))
	if near := similar(full); near != "" {
		f = f.WithHint("did you mean %s?", near)
	}
	return f
}

// fault is a faults.Invalid that begins with the place of path.
func (s *sources) fault(path []string, format string, args ...any) *faults.Fault {
	sentence := fmt.Sprintf(format, args...)
	if at := s.where(path); at.line > 0 {
		sentence = fmt.Sprintf("%s:%d: %s", at.file, at.line, sentence)
	}
	return faults.New(faults.Invalid, "%s", sentence)
}

// title is a path as people say it: "service web: ports[0].published".
func title(path []string) string {
	kind, ok := singular[path[0]]
	switch {
	case !ok || len(path) == 1:
		return dotted(path)
	case len(path) == 2:
		return kind + " " + path[1]
	}
	return kind + " " + path[1] + ": " + dotted(path[2:])
}

// dotted is a path within a service: "ports[0].published".
func dotted(path []string) string {
	var b strings.Builder
	for i, step := range path {
		switch _, err := strconv.Atoi(step); {
		case err == nil:
			fmt.Fprintf(&b, "[%s]", step)
		case i > 0:
			b.WriteString("." + step)
		default:
			b.WriteString(step)
		}
	}
	return b.String()
}

var singular = map[string]string{
	"services": "service", "volumes": "volume", "configs": "config",
	"networks": "network", "secrets": "secret", "jobs": "job", "models": "model",
}

// scalars is the texts of the list that was written last at path.
func (s *sources) scalars(path []string) []string {
	for i := len(s.docs) - 1; i >= 0; i-- {
		n := s.docs[i].root
		for _, step := range path {
			n = child(n, step)
		}
		if n = follow(n); n == nil || n.Kind != yaml.SequenceNode {
			continue
		}
		out := make([]string, len(n.Content))
		for j, item := range n.Content {
			if item = follow(item); item.Kind == yaml.ScalarNode {
				out[j] = item.Value
			}
		}
		return out
	}
	return nil
}

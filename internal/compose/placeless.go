package compose

import (
	"cmp"
	"errors"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/format"
	"github.com/compose-spec/compose-go/v2/types"
	"gopkg.in/yaml.v3"

	"uncloud/internal/faults"
)

// What the parser says without a place: where it was written is looked for.
var (
	undecoded    = "decoding failed due to the following error(s):"
	decodeError  = regexp.MustCompile(`^'(\w+)\[([^\]]+)\]\.?([^']*)' (.*)$`)
	sectionError = regexp.MustCompile(`^(services|volumes|configs|networks|secrets|include) must be a (?:mapping|list)$`)
	cycleError   = regexp.MustCompile(`^dependency cycle detected: ((\S+) -> .*)$`)
	circleError  = regexp.MustCompile(`^Circular reference: (\S+) in (\S+)`)
	fileError    = regexp.MustCompile(`^(?:open|env file|label file|failed to read) (.+?)(?: not found)?: (?:(?:stat|read|open) .+?: )?(.+)$`)
	lineError    = regexp.MustCompile(`^line (\d+): (.*)$`)
	offsetError  = regexp.MustCompile(`^failed to parse (.+?): (?:yaml: )?(?:offset \d+: )?(.*)$`)
	numberError  = regexp.MustCompile(`(?:failed to cast to expected type: )?strconv\.\w+: parsing (".*"): [a-z ]+`)
	lineBreak    = regexp.MustCompile(`\s*\n\s*`)
)

// separate takes apart the errors that the parser writes one a line, in no
// order; theirs is that of the file.
func (s *sources) separate(err error) error {
	list, several := strings.CutPrefix(err.Error(), undecoded)
	if !several {
		return err
	}
	lines := strings.FieldsFunc(list, func(r rune) bool { return r == '\n' })
	slices.SortFunc(lines, func(a, b string) int {
		pathA, _ := undecodedAt(a)
		pathB, _ := undecodedAt(b)
		x, y := s.where(pathA), s.where(pathB)
		return cmp.Or(cmp.Compare(x.file, y.file), cmp.Compare(x.line, y.line), cmp.Compare(a, b))
	})
	all := make([]error, len(lines))
	for i, line := range lines {
		all[i] = errors.New(line)
	}
	return errors.Join(all...)
}

// undecodedAt is the path of a line of such errors, or nil, and what it says.
func undecodedAt(line string) (path []string, says string) {
	m := decodeError.FindStringSubmatch(line)
	if m == nil {
		return nil, line
	}
	path = []string{m[1], m[2]}
	if m[3] != "" {
		path = append(path, steps(m[3])...)
	}
	return path, m[4]
}

// oneLine is a text of the parser as a sentence can hold it.
func oneLine(text string) string {
	text = lineBreak.ReplaceAllString(strings.TrimSpace(text), " ")
	text = numberError.ReplaceAllString(text, "$1 cannot be read as a number")
	return strings.ReplaceAll(text, "time: ", "")
}

// explainPlaceless is an error in which the parser names no place. Where none
// is found, the sentence begins with the files.
func (s *sources) explainPlaceless(text string) *faults.Fault {
	if text == "empty compose file" || text == "top-level object must be a mapping" {
		return s.noMapping()
	}
	if path, says := undecodedAt(text); path != nil {
		return s.fault(path, "%s: %s", title(path), says).WithHint("%s", measure(says))
	}
	if m := sectionError.FindStringSubmatch(text); m != nil {
		return s.fault([]string{m[1]}, "%s", text)
	}
	if m := cycleError.FindStringSubmatch(text); m != nil {
		return s.fault([]string{"services", m[2], "depends_on"}, "service %s: depends_on is a circle: %s", m[2], m[1]).
			WithHint("remove one of these dependencies")
	}
	if m := circleError.FindStringSubmatch(text); m != nil {
		return s.fault([]string{"services", m[1], "extends"}, "service %s: extends is a circle in %s", m[1], s.show(m[2])).
			WithHint("let one of them stand on its own")
	}
	if m := offsetError.FindStringSubmatch(text); m != nil {
		return faults.New(faults.Invalid, "%s: %s", s.show(m[1]), m[2])
	}
	if m := fileError.FindStringSubmatch(text); m != nil {
		return s.explainFile(m[1], m[2])
	}
	return s.explainShort(text)
}

// measure is how to write what could not be read.
func measure(text string) string {
	switch {
	case strings.Contains(text, "suffix"), strings.Contains(text, "size"):
		return "write a size such as 512m or 2g"
	case strings.Contains(text, "duration"):
		return "write a duration such as 10s or 1m30s"
	}
	return ""
}

// noMapping is the fault of a file that holds no keys, or of files that hold
// nothing.
func (s *sources) noMapping() *faults.Fault {
	const hint = "write what should run under services:, as in docs/compose.md"
	for _, d := range s.docs {
		if n := follow(d.root); n != nil && n.Kind != yaml.MappingNode {
			return faults.New(faults.Invalid, "%s:%d: a Compose file has keys at its top, and this is none", s.show(d.file), n.Line).WithHint(hint)
		}
	}
	return faults.New(faults.Invalid, "nothing is written in %s", s.names()).WithHint(hint)
}

// names is the files, as the user would write them.
func (s *sources) names() string {
	var names []string
	for _, file := range s.files {
		names = append(names, s.show(file))
	}
	return strings.Join(names, ", ")
}

// explainFile is a file that cannot be read, at the place that names it, or
// with the line of it that is wrong.
func (s *sources) explainFile(file, reason string) *faults.Fault {
	if m := lineError.FindStringSubmatch(reason); m != nil {
		return faults.New(faults.Invalid, "%s:%s: %s", s.show(file), m[1], m[2])
	}
	path, at := s.find(func(d document, path []string, value string) bool {
		names := slices.ContainsFunc(path, func(step string) bool {
			return slices.Contains([]string{"include", "extends", "env_file", "label_file"}, step)
		})
		abs := filepath.IsAbs(value) && filepath.Clean(value) == file
		return names && (abs || filepath.Join(filepath.Dir(d.file), value) == file || filepath.Join(s.dir, value) == file)
	})
	return s.faultAt(path, at, "%s: %s", s.show(file), reason).
		WithHint("name a file that is there; a path begins at the folder of the file that it is written in")
}

// explainShort is an error of a short form such as "8080:80", which the parser
// says without the text that it read.
func (s *sources) explainShort(text string) *faults.Fault {
	var said string
	path, at := s.find(func(_ document, path []string, value string) bool {
		said = value
		return isShort(text, path, value)
	})
	if at.line == 0 {
		return s.faultAt(nil, at, "%s", text)
	}
	hints := map[string]string{
		"ports":   `write PUBLISHED:TARGET with ports from 1 to 65535, such as "8080:80"`,
		"volumes": "write NAME:TARGET, such as data:/data",
		"devices": "write SOURCE:TARGET, such as /dev/ttyUSB0:/dev/ttyUSB0",
	}
	return s.faultAt(path, at, "%q cannot be read: %s", said, text).WithHint("%s", hints[path[2]])
}

// isShort tells whether text is what the parser says of the item at path.
func isShort(text string, path []string, value string) bool {
	if len(path) != 4 || path[0] != "services" {
		return false
	}
	var err error
	switch path[2] {
	case "ports":
		_, err = types.ParsePortConfig(value)
	case "volumes":
		_, err = format.ParseVolume(value)
	case "devices":
		return strings.HasSuffix(text, ": "+value)
	}
	return err != nil && strings.HasSuffix(text, err.Error())
}

// faultAt is fault at a place that was found; without one it names the files.
func (s *sources) faultAt(path []string, at place, text string, args ...any) *faults.Fault {
	if at.line == 0 {
		return faults.New(faults.Invalid, "%s: "+text, append([]any{s.names()}, args...)...)
	}
	return faults.New(faults.Invalid, "%s:%d: %s: "+text, append([]any{at.file, at.line, title(path)}, args...)...)
}

// find is the path and the place of the first text for which match says yes.
// The text has its variables filled in.
func (s *sources) find(match func(d document, path []string, value string) bool) (found []string, at place) {
	for _, d := range s.docs {
		var visit func(n *yaml.Node, path []string) bool
		visit = func(n *yaml.Node, path []string) bool {
			const deepest = 30 // an alias may stand within itself
			n = follow(n)
			if n == nil || len(path) > deepest {
				return false
			}
			if n.Kind == yaml.ScalarNode && match(d, path, s.expand(n.Value)) {
				found, at = path, place{s.show(d.file), n.Line}
				return true
			}
			return slices.ContainsFunc(below(n, path), func(b written) bool { return visit(b.node, b.path) })
		}
		if visit(d.root, nil) {
			return found, at
		}
	}
	return nil, place{}
}

// written is a node with its path.
type written struct {
	path []string
	node *yaml.Node
}

// below is the values of a mapping, those of << as if they were its own, or
// the items of a list.
func below(n *yaml.Node, path []string) []written {
	var out []written
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			at := slices.Concat(path, []string{n.Content[i].Value})
			if n.Content[i].Tag == "!!merge" {
				at = path
			}
			out = append(out, written{at, n.Content[i+1]})
		}
	case yaml.SequenceNode:
		for i, item := range n.Content {
			out = append(out, written{slices.Concat(path, []string{strconv.Itoa(i)}), item})
		}
	}
	return out
}

package compose

import (
	"maps"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// Build says how a service's image could be built. Nothing here builds it.
type Build struct {
	Service    string
	Image      string
	Context    string            // absolute path, or an address
	Dockerfile string            // within the context, or absolute
	Target     string            `json:",omitempty"`
	Args       map[string]string `json:",omitempty"`
}

func newBuild(service, image string, in *types.BuildConfig) Build {
	b := Build{Service: service, Image: image, Context: in.Context, Dockerfile: in.Dockerfile, Target: in.Target}
	for name, value := range in.Args {
		if b.Args == nil {
			b.Args = map[string]string{}
		}
		b.Args[name] = ""
		if value != nil {
			b.Args[name] = *value
		}
	}
	return b
}

// Command is the two commands, as a shell takes them, that build the image and
// give it to the machines. The context is written as the caller would.
func (b Build) Command(context string) string {
	words := []string{"podman", "build", "-t", shellWord(b.Image)}
	if b.Dockerfile != "" && b.Dockerfile != "Dockerfile" {
		file := b.Dockerfile
		if !filepath.IsAbs(file) && !strings.Contains(context, "://") {
			file = path.Join(context, file)
		}
		words = append(words, "-f", shellWord(file))
	}
	if b.Target != "" {
		words = append(words, "--target", shellWord(b.Target))
	}
	for _, name := range slices.Sorted(maps.Keys(b.Args)) {
		words = append(words, "--build-arg", shellWord(name+"="+b.Args[name]))
	}
	words = append(words, shellWord(context), "&&", "uc", "image", "push", shellWord(b.Image))
	return strings.Join(words, " ")
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./:@%+=,-]+$`)

// shellWord is text as one word of a shell's line.
func shellWord(text string) string {
	if plainWord.MatchString(text) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

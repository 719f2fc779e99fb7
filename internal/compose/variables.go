package compose

import (
	"fmt"
	"maps"
	"regexp"
	"slices"

	"github.com/compose-spec/compose-go/v2/template"
)

// substitute is the parser's own interpolation, except that a variable that is
// not set is remembered instead of logged.
func (in *input) substitute(text string, lookup template.Mapping) (string, error) {
	return template.SubstituteWithOptions(text, lookup, template.WithoutLogging, template.WithReplacementFunction(
		func(part string, lookup template.Mapping, cfg *template.Config) (string, error) {
			value, applied, err := template.DefaultReplacementAppliedFunc(part, lookup, cfg)
			if name := variableName.FindString(part); err == nil && !applied && name != "" {
				in.unset[name] = true
			}
			return value, err
		}))
}

// expand is text with its variables filled in, or as it is where that cannot be.
func (in *input) expand(text string) string {
	filled, err := template.SubstituteWithOptions(text, in.details.LookupEnv, template.WithoutLogging)
	if err != nil {
		return text
	}
	return filled
}

var variableName = regexp.MustCompile(`[A-Za-z_][A-Za-z0-9_]*`)

// blanks is one sentence for each variable that was not set.
func (in *input) blanks() []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(in.unset)) {
		out = append(out, fmt.Sprintf("variable %s is not set and was read as blank", name))
	}
	return out
}

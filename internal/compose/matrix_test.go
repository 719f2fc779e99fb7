package compose

import (
	"fmt"
	"strings"
)

// matrix is docs/compose.md, made from the table.
func matrix() string {
	var b strings.Builder
	b.WriteString(matrixHead)
	for _, part := range []struct{ title, prefix string }{
		{"Top level", ""}, {"Volumes", "volumes.*."}, {"Configs", "configs.*."}, {"Services", "services.*."},
	} {
		fmt.Fprintf(&b, "\n## %s\n\n| key | | |\n|---|---|---|\n", part.title)
		for _, k := range keys {
			name, ok := strings.CutPrefix(k.path, part.prefix)
			if !ok || k.verdict == absent || part.prefix == "" && strings.Contains(strings.TrimSuffix(k.path, ".*"), ".") {
				continue
			}
			name = strings.TrimSuffix(strings.ReplaceAll(name, ".[]", "[]"), ".*")
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name, verdictWords[k.verdict], strings.ReplaceAll(k.note, "|", `\|`))
		}
	}
	return b.String()
}

var verdictWords = map[verdict]string{mapped: "yes", accepted: "no effect", refused: "**refused**"}

const matrixHead = `# Compose files

What each key of a Compose file means here. This page is made from the table that the program itself uses.

- **yes**: it does what Compose says, within the limits beside it.
- **no effect**: it may stay in the file, for the reason beside it.
- **refused**: ` + "`uc deploy`" + ` names the key with its file and line, and changes nothing. The last column says what to do instead.

No key is ignored in silence. Keys that Compose itself does not know, and ` + "`x-`" + ` keys within services and volumes that are not
listed here, are refused too. Interpolation, ` + "`.env`" + `, profiles, ` + "`include`" + `, ` + "`extends`" + ` and several files work as in Compose.
`

package render

import (
	"strings"

	"charm.land/lipgloss/v2"
)

// Table is rows under a header.
type Table struct {
	head []string
	rows [][]string
}

// NewTable makes a table with these columns.
func NewTable(head ...string) *Table { return &Table{head: head} }

// Row adds a row with one cell a column.
func (t *Table) Row(cells ...string) { t.rows = append(t.rows, cells) }

// Write writes the header and the rows.
func (t *Table) Write(s Stream) {
	widths := t.widths()
	head := make([]string, len(t.head))
	for i, cell := range t.head {
		head[i] = s.Faint(cell)
	}
	s.Line("%s", line(head, widths))
	for _, row := range t.rows {
		s.Line("%s", line(row, widths))
	}
}

func (t *Table) widths() []int {
	widths := make([]int, len(t.head))
	for i, cell := range t.head {
		widths[i] = len(cell)
	}
	for _, row := range t.rows {
		for i, cell := range row {
			widths[i] = max(widths[i], lipgloss.Width(orDash(cell)))
		}
	}
	return widths
}

func line(cells []string, widths []int) string {
	var b strings.Builder
	for i, cell := range cells {
		cell = orDash(cell)
		b.WriteString(cell)
		if i < len(cells)-1 {
			b.WriteString(strings.Repeat(" ", widths[i]-lipgloss.Width(cell)+2))
		}
	}
	return b.String()
}

func orDash(cell string) string {
	if cell == "" {
		return "-"
	}
	return cell
}

// Fields writes names and values, one pair a line: the view of a single thing.
// Pairs with an empty value are left out.
func Fields(s Stream, pairs ...string) {
	width := 0
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			width = max(width, len(pairs[i]))
		}
	}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			s.Line("%s%s  %s", s.Faint(pairs[i]), strings.Repeat(" ", width-len(pairs[i])), pairs[i+1])
		}
	}
}

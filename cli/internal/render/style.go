package render

import "charm.land/lipgloss/v2"

// Style colours text by meaning. Its zero value leaves text as it is.
type Style struct{ colour bool }

var (
	good  = lipgloss.NewStyle().Foreground(lipgloss.Green)
	bad   = lipgloss.NewStyle().Foreground(lipgloss.Red)
	warn  = lipgloss.NewStyle().Foreground(lipgloss.Yellow)
	faint = lipgloss.NewStyle().Faint(true)
	bold  = lipgloss.NewStyle().Bold(true)
)

func (s Style) Good(text string) string  { return s.render(good, text) }
func (s Style) Bad(text string) string   { return s.render(bad, text) }
func (s Style) Warn(text string) string  { return s.render(warn, text) }
func (s Style) Faint(text string) string { return s.render(faint, text) }
func (s Style) Bold(text string) string  { return s.render(bold, text) }

// State colours the state or health of something by its word.
func (s Style) State(word string) string {
	switch word {
	case "up", "running", "healthy":
		return s.Good(word)
	case "down", "failed", "lost", "unhealthy", "exited":
		return s.Bad(word)
	case "joining", "starting", "pending", "draining", "unknown":
		return s.Warn(word)
	}
	return word
}

// palette tells apart the sources of merged log lines.
var palette = []lipgloss.Style{
	lipgloss.NewStyle().Foreground(lipgloss.Cyan), lipgloss.NewStyle().Foreground(lipgloss.Yellow),
	lipgloss.NewStyle().Foreground(lipgloss.Green), lipgloss.NewStyle().Foreground(lipgloss.Magenta),
	lipgloss.NewStyle().Foreground(lipgloss.Blue),
}

// Source colours the name of the n-th of several sources.
func (s Style) Source(n int, text string) string { return s.render(palette[n%len(palette)], text) }

func (s Style) render(style lipgloss.Style, text string) string {
	if !s.colour || text == "" {
		return text
	}
	return style.Render(text)
}

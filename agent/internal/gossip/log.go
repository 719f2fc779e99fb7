package gossip

import (
	"bytes"
	"context"
	"log"
	"log/slog"
)

// serfLog carries Serf's text log, one line a write, into slog. All of it is
// debug: what an operator should know of membership, this package says itself.
type serfLog struct{ logger *slog.Logger }

func newSerfLog(logger *slog.Logger) *log.Logger {
	return log.New(serfLog{logger}, "", 0)
}

func (l serfLog) Write(line []byte) (int, error) {
	if l.logger.Enabled(context.Background(), slog.LevelDebug) {
		severity, text := splitSeverity(line)
		l.logger.Debug("serf reports", "text", text, "severity", severity)
	}
	return len(line), nil
}

// splitSeverity takes "[WARN] memberlist: text" apart.
func splitSeverity(line []byte) (severity, text string) {
	line = bytes.TrimSpace(line)
	if rest, ok := bytes.CutPrefix(line, []byte("[")); ok {
		if level, text, ok := bytes.Cut(rest, []byte("] ")); ok {
			return string(level), string(text)
		}
	}
	return "", string(line)
}

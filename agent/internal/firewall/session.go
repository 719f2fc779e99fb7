package firewall

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// session is one child `nft -i`. The table it makes belongs to its netlink
// socket, so it lives as long as this agent wants to be the owner.
//
// nft answers nothing to a transaction that succeeds, and writes errors to
// stderr, unbuffered. So after each transaction the session asks for a chain
// that cannot exist: the complaint about it marks the end of the answer.
//
//	> destroy table inet uncloud; table inet uncloud { ... }
//	> list chain inet uncloud sync_7
//	< Error: ...                          only if the transaction failed
//	< Error: No such file or directory
//	< list chain inet uncloud sync_7      the mark
type session struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines chan string   // of stderr; closed when the child has ended
	ended chan struct{} // closed after the child was reaped
	count int           // transactions so far
}

// maxTransactions bounds what one child remembers: nft keeps each line it has
// read in its history.
const maxTransactions = 256

// stopGrace is how long a child may take to end by itself.
const stopGrace = 2 * time.Second

// nftEnv keeps nft from translating errors and from writing ~/.nft.history.
func nftEnv() []string {
	return []string{"HOME=/dev/null", "LC_ALL=C", "PATH=" + os.Getenv("PATH")}
}

func openSession(nft string) (*session, error) {
	cmd := exec.Command(nft, "-i")
	cmd.Env = nftEnv()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a terminal's Ctrl-C is not for it
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s -i: %w", nft, err)
	}
	s := &session{cmd: cmd, stdin: stdin, lines: make(chan string, 16), ended: make(chan struct{})}
	go s.read(stderr)
	return s, nil
}

// read passes stderr on and reaps the child. The channel holds a few lines, so
// a child that complains unasked does not fill it: transact drains it first.
func (s *session) read(stderr io.Reader) {
	defer close(s.ended)
	r := bufio.NewReader(stderr)
	for {
		line, err := r.ReadString('\n')
		if line != "" {
			s.lines <- strings.TrimSuffix(line, "\n")
		}
		if err != nil {
			break
		}
	}
	close(s.lines)
	_ = s.cmd.Wait() // how it ended is of no use: it should not have
}

var errSessionEnded = errors.New("nft ended")

// transact runs one line as one transaction and returns nft's complaint as an
// error. After an error of ctx the session cannot be used any more.
func (s *session) transact(ctx context.Context, line string) error {
	s.count++
	mark := fmt.Sprintf("sync_%d", s.count)
	sent := make(chan error, 1)
	go func() { // a pipe is small and a child may hang
		_, err := io.WriteString(s.stdin, line+"\nlist chain inet "+Table+" "+mark+"\n")
		sent <- err
	}()
	var complaint []string
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-sent:
			if err != nil {
				return errSessionEnded
			}
			sent = nil
		case l, ok := <-s.lines:
			if !ok {
				return errSessionEnded
			}
			if strings.HasPrefix(l, "list chain inet ") && strings.HasSuffix(l, " "+mark) {
				return complaintError(complaint)
			}
			complaint = append(complaint, l)
		}
	}
}

// close ends the child: by the end of its input, or by force. It returns after
// the child was reaped. The table stays.
func (s *session) close() {
	_ = s.stdin.Close()
	force := time.AfterFunc(stopGrace, func() { _ = s.cmd.Process.Kill() })
	defer force.Stop()
	for range s.lines {
	}
	<-s.ended
}

// complaintError makes an error of what nft wrote before the mark, whose own
// first line is the last one here. nft repeats the whole line it was given and
// points at the place with carets, perhaps several times; only the statement
// at the first place is kept.
func complaintError(lines []string) error {
	for i, l := range lines {
		if isCarets(l) { // of an earlier mark, or of nothing we know
			continue
		}
		if i == len(lines)-1 { // belongs to the mark
			return nil
		}
		msg := strings.TrimPrefix(l, "Error: ")
		if i+2 < len(lines) && isCarets(lines[i+2]) {
			msg += ": " + statementAt(lines[i+1], strings.IndexByte(lines[i+2], '^'))
		}
		return errors.New(msg)
	}
	return nil
}

func isCarets(s string) bool { return strings.Trim(s, " \t^~") == "" }

// statementAt is the statement of a one-line ruleset around a column.
func statementAt(line string, col int) string {
	if col < 0 || col >= len(line) {
		return "?"
	}
	start := strings.LastIndexAny(line[:col], ";{") + 1
	end := len(line)
	if n := strings.IndexByte(line[col:], ';'); n >= 0 {
		end = col + n
	}
	const most = 200
	return fmt.Sprintf("%q", strings.TrimSpace(line[start:min(end, start+most)]))
}

// run is one nft by itself, for questions and for when no session is open.
func run(ctx context.Context, nft string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, nft, args...)
	cmd.Env = nftEnv()
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && len(exit.Stderr) > 0 {
		first, _, _ := strings.Cut(string(exit.Stderr), "\n")
		return out, fmt.Errorf("nft %s: %s", strings.Join(args, " "), strings.TrimPrefix(first, "Error: "))
	}
	if err != nil {
		return out, fmt.Errorf("nft %s: %w", strings.Join(args, " "), err)
	}
	return out, nil
}

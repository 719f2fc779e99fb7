package firewall

import (
	"bufio"
	"bytes"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
)

// monitor is a child `nft monitor` for kernels without owned tables: there a
// reload of the machine's firewall takes our table, and the best that can be
// done is to put it back at once.
type monitor struct {
	cmd     *exec.Cmd
	removed chan struct{} // a table of our name was removed, or the child ended
	ended   chan struct{}
}

func startMonitor(nft string) (*monitor, error) {
	cmd := exec.Command(nft, "monitor", "tables")
	cmd.Env = nftEnv()
	// It reads no input whose end would tell it of our death.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s monitor: %w", nft, err)
	}
	m := &monitor{cmd: cmd, removed: make(chan struct{}, 1), ended: make(chan struct{})}
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if strings.HasPrefix(lines.Text(), "delete table inet "+Table) {
				m.notify()
			}
		}
		_ = cmd.Wait()
		close(m.ended)
		m.notify()
	}()
	return m, nil
}

func (m *monitor) notify() {
	select {
	case m.removed <- struct{}{}:
	default:
	}
}

func (m *monitor) over() bool {
	select {
	case <-m.ended:
		return true
	default:
		return false
	}
}

func (m *monitor) stop() {
	_ = m.cmd.Process.Kill()
	<-m.ended
}

// hasTable reads the answer to `list tables inet`.
func hasTable(tables []byte) bool {
	for l := range bytes.Lines(tables) {
		if string(bytes.TrimSpace(l)) == "table inet "+Table {
			return true
		}
	}
	return false
}

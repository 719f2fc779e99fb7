package spec

// NeverRan are the services of which there is nothing but first rollouts that
// failed: no replica, none that is under way or done. Such a row stands for
// nothing that is wanted. It stays only while a machine is down, because the
// same service may run on the other side of a partition: the rows merge, and
// what ran there makes this set not have it.
func (s *State) NeverRan() map[string]bool {
	var failed map[string]bool
	for _, r := range s.Rollouts {
		if r.From == "" && r.Stage == RolloutFailed {
			if failed == nil {
				failed = map[string]bool{}
			}
			failed[r.Service] = true
		}
	}
	if failed == nil {
		return nil
	}
	for _, r := range s.Rollouts {
		if r.From != "" || r.Stage != RolloutFailed && r.Stage != RolloutSuperseded {
			delete(failed, r.Service)
		}
	}
	for _, r := range s.Replicas {
		delete(failed, r.Service)
	}
	return failed
}

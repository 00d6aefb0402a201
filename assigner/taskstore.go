package assigner

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"

	"github.com/signpost-index/signpost/api/admin"
)

const (
	// tasksSuffix is added to the name of the intents file.
	tasksSuffix   = ".tasks"
	maxTasksBytes = 16 << 20
	// keptTasks is how many tasks are remembered, those that are over included.
	keptTasks = 20
)

// taskStore keeps the tasks that were asked for: in a file, or with no file in
// memory. Its methods are safe for concurrent use.
type taskStore struct {
	file string

	mu   sync.Mutex // held while the file is written
	kept keptTaskList
}

// keptTaskList are what the file has, as JSON.
type keptTaskList struct {
	Last  int // number of the newest
	Tasks []Task
}

// openTasks reads the file beside the intents file, if there is one.
func openTasks(intentsFile string) (*taskStore, error) {
	s := &taskStore{}
	if intentsFile == "" {
		return s, nil
	}
	s.file = intentsFile + tasksSuffix
	f, err := os.Open(s.file)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("tasks file: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxTasksBytes))
	if err == nil {
		err = json.Unmarshal(b, &s.kept)
	}
	for _, t := range s.kept.Tasks {
		err = errors.Join(err, t.check())
	}
	if err != nil {
		return nil, fmt.Errorf("tasks file %s: %w; move the file away: then what is under way is forgotten, and indexers held for them take content again", s.file, err)
	}
	return s, nil
}

// check refuses a kept task that cannot be carried out.
func (t Task) check() error {
	switch {
	case t.Kind == TaskUpgrade && t.Settings == nil, t.Kind == TaskReindex && t.Reindex == nil:
		return fmt.Errorf("%.100q has no settings", t.ID)
	case t.Kind != TaskUpgrade && t.Kind != TaskReindex:
		return fmt.Errorf("%.100q is of a kind that this version does not know: %.100q", t.ID, t.Kind)
	}
	return nil
}

// all are the tasks, the oldest first. The caller does not change them.
func (s *taskStore) all() []Task {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept.Tasks
}

// active is the task that is not over; false if there is none.
func (s *taskStore) active() (Task, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept.active()
}

func (k keptTaskList) active() (Task, bool) {
	if n := len(k.Tasks); n > 0 && !k.Tasks[n-1].State.over() {
		return k.Tasks[n-1], true
	}
	return Task{}, false
}

// begin keeps a task, which gets its ID. Only one is under way.
func (s *taskStore) begin(t Task) (Task, error) {
	err := s.change(func(k keptTaskList) (keptTaskList, error) {
		if a, busy := k.active(); busy {
			return k, fmt.Errorf("%w: %s is %s: go on with it, or end it (signpost pool tasks end %s)", admin.ErrRefused, a.ID, a.State, a.ID)
		}
		k.Last++
		t.ID = fmt.Sprintf("%s-%d", t.Kind, k.Last)
		k.Tasks = append(slices.Clone(k.Tasks[max(0, len(k.Tasks)-keptTasks+1):]), t)
		return k, nil
	})
	return t, err
}

// update replaces the task of an ID by what f makes of it.
func (s *taskStore) update(id string, f func(Task) (Task, error)) error {
	return s.change(func(k keptTaskList) (keptTaskList, error) {
		n := slices.IndexFunc(k.Tasks, func(t Task) bool { return t.ID == id })
		if n < 0 {
			return k, fmt.Errorf("%w: no task %.100q", admin.ErrNotFound, id)
		}
		t, err := f(k.Tasks[n])
		if err != nil {
			return k, err
		}
		k.Tasks = slices.Clone(k.Tasks)
		k.Tasks[n] = t
		return k, nil
	})
}

// change replaces what is kept, on disk first. After an error it is as before.
func (s *taskStore) change(f func(keptTaskList) (keptTaskList, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, err := f(s.kept)
	if err != nil {
		return err
	}
	if s.file != "" {
		b, err := json.MarshalIndent(k, "", " ")
		if err == nil {
			err = replaceFile(s.file, append(b, '\n'))
		}
		if err != nil {
			return fmt.Errorf("%w: the task cannot be kept, and stays as it was: %w", admin.ErrUnavailable, err)
		}
	}
	s.kept = k
	return nil
}

// The official client module against an agent: every call must decode and hold what it should.
//
// Run by tests/conformance/goclient.rs with NOMAD_ADDR set and the JSON job file as its argument. Prints one line a call.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/hashicorp/nomad/api/contexts"
)

var calls int

// call ends the program with a reason unless the call went well and what it gave is so.
func call(name string, err error, isSo func() bool, what any) {
	if err != nil {
		fail(name, err.Error())
	}
	if isSo != nil && !isSo() {
		text, _ := json.Marshal(what)
		fail(name, "unexpected: "+string(text))
	}
	calls++
	fmt.Println("ok:", name)
}

// refused is call's opposite: an error with this text and status.
func refused(name string, err error, status int, text string) {
	var answer api.UnexpectedResponseError
	if err == nil || !errors.As(err, &answer) || answer.StatusCode() != status || !strings.Contains(answer.Body(), text) {
		fail(name, fmt.Sprintf("expected %d %q, got %v", status, text, err))
	}
	calls++
	fmt.Println("ok:", name)
}

func fail(name, why string) {
	fmt.Printf("FAILED: %s: %s\n", name, why)
	os.Exit(1)
}

// until repeats a blocking query until what it gives is so.
func until[T any](name string, ask func(*api.QueryOptions) (T, *api.QueryMeta, error), isSo func(T) bool) T {
	end := time.Now().Add(time.Minute)
	query := &api.QueryOptions{WaitTime: 2 * time.Second}
	for {
		got, meta, err := ask(query)
		if err == nil && isSo(got) {
			call(name, nil, func() bool { return meta.LastIndex > 0 && meta.KnownLeader }, meta)
			return got
		}
		if time.Now().After(end) {
			call(name, err, func() bool { return false }, got)
		}
		if meta != nil {
			query.WaitIndex = meta.LastIndex
		}
	}
}

func read(name string, from io.ReadCloser, err error) string {
	if err != nil {
		fail(name, err.Error())
	}
	defer from.Close()
	text, err := io.ReadAll(from)
	call(name, err, nil, nil)
	return string(text)
}

// frames reads a stream until its data contains text.
func frames(name string, stream <-chan *api.StreamFrame, errs <-chan error, cancel chan struct{}, text string) {
	defer close(cancel)
	var data strings.Builder
	end := time.After(time.Minute)
	for {
		select {
		case frame, isOpen := <-stream:
			if !isOpen {
				fail(name, "ended with "+data.String())
			}
			data.Write(frame.Data)
			if strings.Contains(data.String(), text) {
				call(name, nil, func() bool { return frame.File != "" && frame.Offset > 0 }, frame)
				return
			}
		case err := <-errs:
			fail(name, err.Error())
		case <-end:
			fail(name, "nothing after "+data.String())
		}
	}
}

func main() {
	client, err := api.NewClient(api.DefaultConfig())
	call("NewClient", err, func() bool { return client != nil }, nil)
	text, err := os.ReadFile(os.Args[1])
	call("job file", err, nil, nil)
	var file struct{ Job *api.Job }
	call("decode", json.Unmarshal(text, &file), func() bool { return file.Job != nil }, nil)

	agents(client)
	node := nodes(client)
	alloc := jobs(client, file.Job, node)
	deployments(client)
	files(client, alloc)
	lives(client, alloc)

	evalID, write, err := client.Jobs().Deregister("telemetry", false, nil)
	call("Jobs.Deregister", err, func() bool { return evalID != "" && write.LastIndex > 0 }, evalID)
	until("Jobs.Info stopped", func(q *api.QueryOptions) (*api.Job, *api.QueryMeta, error) { return client.Jobs().Info("telemetry", q) },
		func(job *api.Job) bool { return *job.Status == "dead" && *job.Stop })
	_, _, err = client.Jobs().Deregister("telemetry", true, nil)
	call("Jobs.Deregister purge", err, nil, nil)
	_, _, err = client.Jobs().Info("telemetry", nil)
	refused("Jobs.Info purged", err, 404, "job not found")
	fmt.Println("client:", calls, "calls")
}

func agents(client *api.Client) {
	self, err := client.Agent().Self()
	call("Agent.Self", err, func() bool { return self.Stats["client"]["node_id"] != "" && self.Config["Region"] == "global" }, self)
	health, err := client.Agent().Health()
	call("Agent.Health", err, func() bool { return health.Client.Ok }, health)
	members, err := client.Agent().Members()
	call("Agent.Members", err, func() bool { return len(members.Members) == 1 && members.Members[0].Status == "alive" }, members)
	name, err := client.Agent().NodeName()
	call("Agent.NodeName", err, func() bool { return name != "" }, name)
	datacenter, err := client.Agent().Datacenter()
	call("Agent.Datacenter", err, func() bool { return datacenter == "dc1" }, datacenter)
	region, err := client.Agent().Region()
	call("Agent.Region", err, func() bool { return region == "global" }, region)
	servers, err := client.Agent().Servers()
	call("Agent.Servers", err, func() bool { return len(servers) == 0 }, servers)
	leader, err := client.Status().Leader()
	call("Status.Leader", err, func() bool { return strings.HasSuffix(leader, ":4647") }, leader)
	peers, err := client.Status().Peers()
	call("Status.Peers", err, func() bool { return len(peers) == 1 }, peers)
	regions, err := client.Regions().List()
	call("Regions.List", err, func() bool { return len(regions) == 1 && regions[0] == "global" }, regions)
	namespaces, meta, err := client.Namespaces().List(nil)
	call("Namespaces.List", err, func() bool { return namespaces[0].Name == "default" && meta.LastIndex > 0 }, namespaces)
	namespace, _, err := client.Namespaces().Info("default", nil)
	call("Namespaces.Info", err, func() bool { return namespace.Description == "Default shared namespace" }, namespace)
	_, err = client.Raw().Query("/v1/nope", nil, nil)
	refused("Raw.Query unknown", err, 404, "")
}

func nodes(client *api.Client) *api.Node {
	list, meta, err := client.Nodes().List(&api.QueryOptions{Params: map[string]string{"resources": "true", "os": "true"}})
	call("Nodes.List", err, func() bool {
		return len(list) == 1 && meta.LastIndex > 0 && list[0].Status == "ready" && list[0].NodeResources.Cpu.CpuShares > 0
	}, list)
	node, _, err := client.Nodes().Info(list[0].ID, nil)
	isWhole := err == nil && node.HTTPAddr != "" && node.NodeResources.Memory.MemoryMB > 0 && node.Drivers["raw_exec"].Healthy && !node.Drain
	call("Nodes.Info", err, func() bool { return isWhole }, node)
	stats, err := client.Nodes().Stats(node.ID, nil)
	call("Nodes.Stats", err, func() bool {
		return stats.Memory.Total > 0 && len(stats.CPU) > 0 && len(stats.DiskStats) > 0 && stats.Uptime > 0
	}, stats)
	_, _, err = client.Nodes().Info("00000000-0000-0000-0000-000000000000", nil)
	refused("Nodes.Info unknown", err, 404, "node not found")
	change, err := client.Nodes().ToggleEligibility(node.ID, false, nil)
	call("Nodes.ToggleEligibility", err, func() bool { return change.NodeModifyIndex > 0 }, change)
	_, err = client.Nodes().ToggleEligibility(node.ID, true, nil)
	call("Nodes.ToggleEligibility back", err, nil, nil)
	return node
}

func jobs(client *api.Client, job *api.Job, node *api.Node) *api.Allocation {
	valid, _, err := client.Jobs().Validate(job, nil)
	call("Jobs.Validate", err, func() bool {
		return valid.DriverConfigValidated && len(valid.ValidationErrors) == 0 && valid.Error == ""
	}, valid)
	done, write, err := client.Jobs().Register(job, nil)
	call("Jobs.Register", err, func() bool {
		return done.EvalID != "" && done.JobModifyIndex > 0 && write.LastIndex == done.JobModifyIndex
	}, done)
	_, _, err = client.Jobs().EnforceRegister(job, done.JobModifyIndex+100, nil)
	refused("Jobs.EnforceRegister", err, 500, "Enforcing job modify index")

	list, meta, err := client.Jobs().List(nil)
	call("Jobs.List", err, func() bool {
		return len(list) == 1 && meta.KnownLeader && list[0].JobSummary.Summary["sense"].Queued == 0
	}, list)
	some, _, err := client.Jobs().PrefixList("tele")
	call("Jobs.PrefixList", err, func() bool { return len(some) == 1 }, some)
	whole, _, err := client.Jobs().Info("telemetry", nil)
	call("Jobs.Info", err, func() bool {
		return *whole.TaskGroups[0].Count == 2 && whole.TaskGroups[0].Tasks[0].KillTimeout.Seconds() == 3
	}, whole)
	versions, _, _, err := client.Jobs().Versions("telemetry", false, nil)
	call("Jobs.Versions", err, func() bool { return len(versions) == 1 && *versions[0].Version == 0 }, versions)
	deployment, _, err := client.Jobs().LatestDeployment("telemetry", nil)
	call("Jobs.LatestDeployment", err, func() bool {
		return deployment.JobVersion == 0 && deployment.TaskGroups["sense"].DesiredTotal == 2
	}, deployment)
	stubs := until("Jobs.Allocations", func(q *api.QueryOptions) ([]*api.AllocationListStub, *api.QueryMeta, error) {
		return client.Jobs().Allocations("telemetry", true, q)
	},
		func(all []*api.AllocationListStub) bool {
			return len(all) == 2 && all[0].ClientStatus == "running" && all[1].ClientStatus == "running"
		})
	summary, _, err := client.Jobs().Summary("telemetry", nil)
	call("Jobs.Summary", err, func() bool { return summary.Summary["sense"].Running == 2 }, summary)
	evals, _, err := client.Jobs().Evaluations("telemetry", nil)
	call("Jobs.Evaluations", err, func() bool { return len(evals) == 1 && evals[0].Status == "complete" }, evals)

	all, _, err := client.Evaluations().List(nil)
	call("Evaluations.List", err, func() bool { return len(all) == 1 && all[0].ID == done.EvalID }, all)
	page, meta, err := client.Allocations().List(&api.QueryOptions{PerPage: 1})
	call("Allocations.List page", err, func() bool { return len(page) == 1 && meta.NextToken != "" }, meta)
	page, meta, err = client.Allocations().List(&api.QueryOptions{PerPage: 1, NextToken: meta.NextToken})
	call("Allocations.List last page", err, func() bool { return len(page) == 1 && meta.NextToken == "" }, meta)
	some, _, err = client.Jobs().List(&api.QueryOptions{Filter: `Meta.site == "field-7" and (any TaskGroups as g { g.Name == sense })`})
	call("Jobs.List filter", err, func() bool { return len(some) == 1 }, some)
	page, _, err = client.Allocations().List(&api.QueryOptions{Filter: `Job.Type == batch or TaskStates.sample.State == dead`})
	call("Allocations.List filter", err, func() bool { return page != nil && len(page) == 0 }, page)
	_, _, err = client.Allocations().List(&api.QueryOptions{Filter: "JobID"})
	refused("Allocations.List bad filter", err, 400, "failed to create result paginator")
	found, meta, err := client.Search().PrefixSearch(stubs[0].ID[:7], contexts.All, nil)
	call("Search.PrefixSearch", err, func() bool {
		return found.Matches[contexts.Allocs][0] == stubs[0].ID && len(found.Matches) >= 4 && meta.KnownLeader && meta.LastIndex > 0
	}, found)
	eval, _, err := client.Evaluations().Info(done.EvalID, nil)
	call("Evaluations.Info", err, func() bool { return eval.TriggeredBy == "job-register" && eval.JobID == "telemetry" }, eval)
	placed, _, err := client.Evaluations().Allocations(done.EvalID, nil)
	call("Evaluations.Allocations", err, func() bool { return len(placed) == 2 }, placed)

	there, _, err := client.Allocations().List(&api.QueryOptions{Params: map[string]string{"resources": "true"}})
	call("Allocations.List", err, func() bool {
		return len(there) == 2 && there[0].AllocatedResources.Tasks["sample"].Memory.MemoryMB == 16
	}, there)
	alloc, _, err := client.Allocations().Info(stubs[0].ID, nil)
	isWhole := err == nil && alloc.Job != nil && *alloc.Job.Version == 0 && *alloc.Resources.CPU == 50 && *alloc.TaskResources["sample"].MemoryMB == 16 &&
		alloc.Metrics.NodesEvaluated == 1 && alloc.TaskStates["sample"].State == "running" && !alloc.TaskStates["sample"].StartedAt.IsZero()
	call("Allocations.Info", err, func() bool { return isWhole }, alloc)
	here, _, err := client.Nodes().Allocations(node.ID, nil)
	call("Nodes.Allocations", err, func() bool { return len(here) == 2 && here[0].Job != nil }, here)
	stats, err := client.Allocations().Stats(alloc, nil)
	call("Allocations.Stats", err, func() bool { return stats.ResourceUsage.MemoryStats != nil && stats.Tasks["sample"].Timestamp > 0 }, stats)
	_, _, err = client.Allocations().Info("00000000-0000-0000-0000-000000000000", nil)
	refused("Allocations.Info unknown", err, 404, "alloc not found")
	return alloc
}

func files(client *api.Client, alloc *api.Allocation) {
	fs := client.AllocFS()
	list, _, err := fs.List(alloc, "/", nil)
	call("AllocFS.List", err, func() bool {
		return len(list) == 2 && list[0].Name == "alloc" && list[0].IsDir && !list[0].ModTime.IsZero()
	}, list)
	// The task writes it a moment after its start.
	entry, _, err := fs.Stat(alloc, "alloc/data/beat", nil)
	for end := time.Now().Add(time.Minute); (err != nil || entry.Size != 2) && time.Now().Before(end); {
		entry, _, err = fs.Stat(alloc, "alloc/data/beat", nil)
	}
	call("AllocFS.Stat", err, func() bool { return entry.Size == 2 && entry.ContentType == "text/plain; charset=utf-8" }, entry)
	content, err := fs.Cat(alloc, "alloc/data/beat", nil)
	if text := read("AllocFS.Cat", content, err); text != "0\n" {
		fail("AllocFS.Cat", text)
	}
	content, err = fs.ReadAt(alloc, "alloc/data/beat", 1, 1, nil)
	if text := read("AllocFS.ReadAt", content, err); text != "\n" {
		fail("AllocFS.ReadAt", text)
	}
	_, _, err = fs.Stat(alloc, "nope", nil)
	refused("AllocFS.Stat missing", err, 404, "no such file or directory")
	_, err = fs.Cat(alloc, "../..", nil)
	refused("AllocFS.Cat escape", err, 400, "Path escapes the alloc directory")

	cancel := make(chan struct{})
	stream, errs := fs.Stream(alloc, "alloc/logs/sample.stdout.0", "start", 0, cancel, nil)
	frames("AllocFS.Stream", stream, errs, cancel, "\"n\":1")
	cancel = make(chan struct{})
	stream, errs = fs.Logs(alloc, false, "sample", "stdout", "start", 0, cancel, nil)
	frames("AllocFS.Logs", stream, errs, cancel, "\"n\":0")
	cancel = make(chan struct{})
	stream, errs = fs.Logs(alloc, true, "sample", "stdout", "end", 0, cancel, nil)
	if err := client.Allocations().Signal(alloc, nil, "sample", "SIGUSR1"); err != nil {
		fail("Allocations.Signal", err.Error())
	}
	call("Allocations.Signal", nil, nil, nil)
	frames("AllocFS.Logs follow", stream, errs, cancel, "{\"signal\":\"USR1\"}")
	cancel = make(chan struct{})
	_, errs = fs.Logs(alloc, false, "nope", "stdout", "start", 0, cancel, nil)
	refused("AllocFS.Logs unknown task", <-errs, 400, "unknown task name \"nope\"")
}

func lives(client *api.Client, alloc *api.Allocation) {
	refused("Allocations.Signal bad", client.Allocations().Signal(alloc, nil, "sample", "SIGNOPE"), 400, "invalid signal")
	call("Allocations.Restart", client.Allocations().Restart(alloc, "sample", nil), nil, nil)
	state := func(want string, restarts uint64) func(*api.Allocation) bool {
		return func(alloc *api.Allocation) bool {
			task := alloc.TaskStates["sample"]
			return task.State == want && task.Restarts == restarts
		}
	}
	info := func(q *api.QueryOptions) (*api.Allocation, *api.QueryMeta, error) {
		return client.Allocations().Info(alloc.ID, q)
	}
	until("Allocations.Info restarted", info, state("running", 1))
	call("Allocations.RestartAllTasks", client.Allocations().RestartAllTasks(alloc, nil), nil, nil)
	until("Allocations.Info restarted again", info, state("running", 2))
	stop, err := client.Allocations().Stop(alloc, nil)
	call("Allocations.Stop", err, func() bool { return stop.EvalID != "" && stop.LastIndex > 0 }, stop)
	stopped := until("Allocations.Info stopped", info, func(alloc *api.Allocation) bool { return alloc.ClientStatus == "complete" })
	if stopped.NextAllocation == "" || *stopped.DesiredTransition.Migrate != true {
		fail("Allocations.Info stopped", "no successor")
	}
	refused("Allocations.Restart stopped", client.Allocations().Restart(alloc, "", nil), 500, "restart of an alloc that should not run")
}

// deployments does to the one of telemetry what users may do to it, and to its counts.
func deployments(client *api.Client) {
	latest, _, err := client.Jobs().LatestDeployment("telemetry", nil)
	call("Jobs.LatestDeployment again", err, func() bool { return latest != nil }, nil)
	id := latest.ID
	all, _, err := client.Deployments().List(nil)
	call("Deployments.List", err, func() bool { return len(all) == 1 && all[0].ID == id }, all)
	one, _, err := client.Deployments().Info(id, nil)
	call("Deployments.Info", err, func() bool { return one.JobID == "telemetry" && one.Status == "running" }, one)
	placed, _, err := client.Deployments().Allocations(id, nil)
	call("Deployments.Allocations", err, func() bool { return len(placed) == 2 && placed[0].DeploymentStatus == nil }, placed)
	paused, _, err := client.Deployments().Pause(id, true, nil)
	call("Deployments.Pause", err, func() bool { return paused.DeploymentModifyIndex > 0 && paused.EvalID == "" }, paused)
	paused, _, err = client.Deployments().Pause(id, false, nil)
	call("Deployments.Pause off", err, func() bool { return paused.EvalID != "" }, paused)
	healthy, _, err := client.Deployments().SetAllocHealth(id, []string{placed[0].ID}, nil, nil)
	call("Deployments.SetAllocHealth", err, func() bool { return healthy.EvalID != "" }, healthy)
	failed, _, err := client.Deployments().Fail(id, nil)
	call("Deployments.Fail", err, func() bool { return failed.RevertedJobVersion == nil && failed.EvalID != "" }, failed)
	scaled, _, err := client.Jobs().ScaleStatus("telemetry", nil)
	call("Jobs.ScaleStatus", err, func() bool {
		return scaled.TaskGroups["sense"].Desired == 2 && scaled.TaskGroups["sense"].Healthy == 1
	}, scaled)
	_, _, err = client.Jobs().Scale("telemetry", "sense", nil, "looked at", false, map[string]interface{}{"by": "hand"}, nil)
	call("Jobs.Scale remark", err, func() bool { return true }, nil)
	scaled, _, err = client.Jobs().ScaleStatus("telemetry", nil)
	call("Jobs.ScaleStatus events", err, func() bool {
		return len(scaled.TaskGroups["sense"].Events) == 1 && scaled.TaskGroups["sense"].Events[0].Message == "looked at"
	}, scaled)
	evaluated, _, err := client.Jobs().EvaluateWithOpts("telemetry", api.EvalOptions{ForceReschedule: true}, nil)
	call("Jobs.EvaluateWithOpts", err, func() bool { return evaluated != "" }, evaluated)
	_, _, err = client.Jobs().Stable("telemetry", 0, true, nil)
	call("Jobs.Stable", err, func() bool { return true }, nil)
}

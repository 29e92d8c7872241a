#include "api/schemas.hpp"

namespace coppice {
namespace {

constexpr const char* text = R"json({
"tag": {
  "description": "name of a snapshot",
  "type": "string",
  "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
},
"failure_kind": {
  "enum": ["invalid_argument", "not_found", "already_exists", "conflict", "unsupported", "unavailable", "no_space",
           "deadline_exceeded", "cancelled", "io", "corrupt", "internal"]
},
"failure": {
  "type": "object",
  "required": ["error"],
  "properties": {
    "error": {"type": "string", "description": "what is wrong, where, and what to do about it"},
    "code": {
      "$ref": "#/components/schemas/failure_kind",
      "description": "the kind of failure; absent if the request never reached what it asks for"
    }
  }
},
"create_snapshot": {
  "type": "object",
  "additionalProperties": false,
  "required": ["tag", "kernel"],
  "properties": {
    "tag": {"$ref": "#/components/schemas/tag"},
    "kernel": {"$ref": "#/components/schemas/path", "description": "ELF kernel to boot"},
    "initrd": {
      "anyOf": [{"$ref": "#/components/schemas/path"}, {"type": "null"}],
      "description": "image of the first root file system, which a distribution's kernel needs"
    },
    "memory_bytes": {
      "type": ["integer", "null"], "minimum": 2097152, "maximum": 1099511627776, "multipleOf": 1048576,
      "description": "RAM; 256 MiB if neither this nor memory_mib is given"
    },
    "memory_mib": {
      "type": ["integer", "null"], "minimum": 2, "maximum": 1048576,
      "description": "the same in MiB; not together with memory_bytes"
    },
    "vcpus": {"enum": [1, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, null], "default": 1},
    "boot_args": {"type": ["string", "null"], "pattern": "^[^\\u0000]*$", "description": "kernel command line"},
    "rootfs": {
      "anyOf": [{"$ref": "#/components/schemas/path"}, {"type": "null"}],
      "description": "image of the root file system"
    },
    "rootfs_read_only": {"type": ["boolean", "null"], "default": true, "description": "only with rootfs"},
    "rw": {"type": ["boolean", "null"], "description": "forkd's way to say rootfs_read_only: its opposite"},
    "network": {
      "type": ["boolean", "null"], "default": false,
      "description": "with a network interface, eth0 10.42.0.2/24; sandboxes of it need per_child_netns"
    },
    "tap": {
      "type": ["string", "null"],
      "description": "forkd's way to ask for a network; each VM has a tap of its own, so any name will do"
    },
    "boot_time_ms": {
      "type": ["integer", "null"], "minimum": 0, "maximum": 60000, "default": 1000,
      "description": "how long the guest runs before its snapshot is taken"
    },
    "boot_wait_secs": {
      "type": ["integer", "null"], "minimum": 0, "maximum": 60, "description": "forkd's way to say boot_time_ms, in seconds"
    }
  },
  "allOf": [
    {"not": {
      "required": ["memory_bytes", "memory_mib"],
      "properties": {"memory_bytes": {"type": "integer"}, "memory_mib": {"type": "integer"}}
    }},
    {"not": {
      "required": ["rootfs_read_only", "rw"],
      "properties": {"rootfs_read_only": {"type": "boolean"}, "rw": {"type": "boolean"}}
    }},
    {"not": {
      "required": ["boot_time_ms", "boot_wait_secs"],
      "properties": {"boot_time_ms": {"type": "integer"}, "boot_wait_secs": {"type": "integer"}}
    }},
    {"not": {
      "required": ["network", "tap"], "properties": {"network": {"const": false}, "tap": {"type": "string"}}
    }},
    {
      "if": {"required": ["rw"], "properties": {"rw": {"type": "boolean"}}},
      "then": {"required": ["rootfs"], "properties": {"rootfs": {"type": "string"}}}
    },
    {
      "if": {"required": ["rootfs_read_only"], "properties": {"rootfs_read_only": {"type": "boolean"}}},
      "then": {"required": ["rootfs"], "properties": {"rootfs": {"type": "string"}}}
    }
  ]
},
"path": {
  "description": "absolute path of a file on coppiced's host; below an --allow-path folder if there are such",
  "type": "string",
  "pattern": "^/[^\\u0000]*$"
},
"snapshot": {
  "type": "object",
  "required": ["tag", "dir", "created_at_unix", "branched_from", "pause_ms", "status", "bootable", "parent_tag", "mode",
               "vmm", "memory_bytes", "vcpus", "network", "memory_checksum", "progress"],
  "properties": {
    "tag": {"$ref": "#/components/schemas/tag"},
    "dir": {"type": "string", "description": "folder of its files"},
    "created_at_unix": {"type": "integer", "minimum": 0},
    "branched_from": {"type": ["string", "null"], "description": "id of the sandbox; null: of a booted kernel"},
    "parent_tag": {"type": ["string", "null"], "description": "snapshot that the sandbox was started from"},
    "status": {"enum": ["writing", "ready", "failed"]},
    "bootable": {"type": "boolean", "description": "sandboxes can be started from it now: it is ready, and this VMM can load it"},
    "mode": {"enum": ["live", "full", "diff", null], "description": "how it was branched"},
    "vmm": {"type": "string", "description": "what made it; a VMM of the same name, major and minor version can load it"},
    "memory_bytes": {"type": "integer", "minimum": 0, "description": "RAM of the guest"},
    "vcpus": {"type": "integer", "minimum": 0},
    "network": {"type": "boolean", "description": "it has a network interface"},
    "memory_checksum": {"type": ["string", "null"], "pattern": "^[0-9a-f]{16}$"},
    "progress": {"$ref": "#/components/schemas/progress"},
    "pause_ms": {
      "type": ["integer", "null"], "minimum": 0,
      "description": "how long the parent stood still, a part of a millisecond counted as one; exactly: pause.total_us"
    },
    "pause": {"$ref": "#/components/schemas/pause"},
    "copy": {"$ref": "#/components/schemas/copy"},
    "timeline": {
      "type": "array", "items": {"$ref": "#/components/schemas/step"},
      "description": "steps of the branch in their order; absent after a restart of coppiced"
    },
    "note": {"type": "string", "description": "e.g. why a diff branch wrote a full image"},
    "error": {"type": "string", "description": "why it failed"},
    "code": {"$ref": "#/components/schemas/failure_kind", "description": "of what kind its failure was"}
  }
},
"snapshot_details": {
  "allOf": [{"$ref": "#/components/schemas/snapshot"}],
  "type": "object",
  "required": ["memory_logical_bytes", "chain_depth", "parent_content_hash", "ancestors", "dependents"],
  "properties": {
    "memory_logical_bytes": {"type": "integer", "minimum": 0},
    "chain_depth": {"const": 0, "description": "images that are needed besides this one: none, each is whole"},
    "parent_content_hash": {"type": "null"},
    "ancestors": {
      "type": "array", "items": {"$ref": "#/components/schemas/tag"},
      "description": "the first one first, as far as they still exist"
    },
    "dependents": {
      "type": "array", "items": {"$ref": "#/components/schemas/tag"},
      "description": "snapshots whose parent_tag this is"
    }
  }
},
"progress": {
  "description": "of the copy, while status is writing",
  "type": "object",
  "required": ["copied_pages", "total_pages"],
  "properties": {
    "copied_pages": {"type": "integer", "minimum": 0},
    "total_pages": {"type": "integer", "minimum": 0}
  }
},
"pause": {
  "description": "where the parent's time went, in microseconds",
  "type": "object",
  "required": ["pause_us", "snapshot_us", "rearm_us", "resume_us", "total_us"],
  "properties": {
    "pause_us": {"type": "integer", "minimum": 0, "description": "until the VMM had paused"},
    "snapshot_us": {"type": "integer", "minimum": 0, "description": "saving the vmstate; also the memory, unless live"},
    "rearm_us": {"type": "integer", "minimum": 0, "description": "protecting the pages touched meanwhile"},
    "resume_us": {"type": "integer", "minimum": 0, "description": "until the VMM had resumed"},
    "total_us": {"type": "integer", "minimum": 0, "description": "from the pause's request to the resume's answer"}
  }
},
"step": {
  "type": "object",
  "required": ["step", "began_us", "took_us"],
  "properties": {
    "step": {"enum": ["reserve", "prearm", "pause", "snapshot", "rearm", "resume", "copy", "publish"]},
    "began_us": {"type": "integer", "minimum": 0, "description": "since the branch was asked for, in microseconds"},
    "took_us": {"type": "integer", "minimum": 0}
  }
},
"copy": {
  "description": "how the memory got into the image; pages are of 4096 bytes",
  "type": "object",
  "required": ["bulk_pages", "captured_pages", "zero_pages", "hole_pages", "bulk_bytes", "captured_bytes", "zero_bytes",
               "hole_bytes", "written_bytes", "faults", "prearm_us", "copy_us", "longest_fault_us"],
  "properties": {
    "bulk_pages": {"type": "integer", "minimum": 0, "description": "written straight from the guest's RAM"},
    "captured_pages": {"type": "integer", "minimum": 0, "description": "saved when the guest was about to write them"},
    "zero_pages": {"type": "integer", "minimum": 0, "description": "all zero: holes of the image"},
    "hole_pages": {"type": "integer", "minimum": 0, "description": "never touched by the guest"},
    "bulk_bytes": {"type": "integer", "minimum": 0},
    "captured_bytes": {"type": "integer", "minimum": 0},
    "zero_bytes": {"type": "integer", "minimum": 0},
    "hole_bytes": {"type": "integer", "minimum": 0},
    "written_bytes": {"type": "integer", "minimum": 0, "description": "handed to the disk"},
    "faults": {"type": "integer", "minimum": 0, "description": "writes of the guest that waited for a page"},
    "prearm_us": {"type": "integer", "minimum": 0, "description": "protecting all RAM while the guest ran"},
    "copy_us": {"type": "integer", "minimum": 0, "description": "from the resume to the last page"},
    "longest_fault_us": {"type": "integer", "minimum": 0, "description": "the longest such wait"}
  }
},
"verify_report": {
  "type": "object",
  "required": ["tag", "ok", "chunks", "bad_chunks", "vmstate_ok", "is_journal", "journal_pages", "journal_steps",
               "future_pages", "lost_pages", "torn_pages", "gaps"],
  "properties": {
    "tag": {"$ref": "#/components/schemas/tag"},
    "ok": {"type": "boolean", "description": "nothing is wrong with it"},
    "chunks": {"type": "integer", "minimum": 0, "description": "parts of the image that have a checksum"},
    "bad_chunks": {"type": "integer", "minimum": 0, "description": "those whose checksum is wrong"},
    "vmstate_ok": {"type": "boolean"},
    "is_journal": {"type": "boolean", "description": "of the journal guest, so that each page could be checked"},
    "journal_pages": {"type": "integer", "minimum": 0, "description": "pages that were checked"},
    "journal_steps": {"type": "integer", "minimum": 0, "description": "the guest's step at the instant of the image"},
    "future_pages": {"type": "integer", "minimum": 0, "description": "pages written after that instant"},
    "lost_pages": {"type": "integer", "minimum": 0, "description": "pages that lack a write before it"},
    "torn_pages": {"type": "integer", "minimum": 0, "description": "pages of two instants"},
    "gaps": {"type": "integer", "minimum": 0, "description": "restores after which memory and registers disagreed"}
  }
},
"create_sandboxes": {
  "type": "object",
  "additionalProperties": false,
  "required": ["snapshot_tag"],
  "properties": {
    "snapshot_tag": {"$ref": "#/components/schemas/tag"},
    "n": {"type": ["integer", "null"], "minimum": 1, "maximum": 1000, "default": 1, "description": "how many"},
    "live_fork": {
      "type": ["boolean", "null"],
      "description": "a hint of forkd's clients, which changes nothing: whether a sandbox can be branched live is the VMM's matter"
    },
    "per_child_netns": {
      "type": ["boolean", "null"], "default": false,
      "description": "start each in a network namespace of its own, with a tap; needed if the snapshot has a network"
    },
    "prewarm": {
      "type": ["boolean", "null"],
      "description": "a hint of forkd's clients, which changes nothing: the pause of a live branch is as short the first time"
    },
    "hugepages": {
      "type": ["boolean", "null"],
      "description": "a hint of forkd's clients, which changes nothing: RAM always has pages of 4 KiB, as it is protected and copied by them"
    },
    "memory_limit_mib": {
      "type": ["integer", "null"], "minimum": 1, "maximum": 1048576,
      "description": "the most memory that each may take, RAM and VMM together; over it, it is killed. Needs --cgroup"
    }
  }
},
"sandbox": {
  "type": "object",
  "required": ["id", "snapshot_tag", "created_at_unix", "pid", "has_branched", "branch_count", "last_pause_us", "netns",
               "guest_addr", "memory_limit_mib", "state", "backing", "memory_bytes", "vcpus"],
  "properties": {
    "id": {"type": "string"},
    "snapshot_tag": {"$ref": "#/components/schemas/tag", "description": "what it was started from"},
    "created_at_unix": {"type": "integer", "minimum": 0},
    "pid": {"type": "integer", "description": "of its VMM; 0 while it is started"},
    "state": {
      "enum": ["starting", "running", "branching", "stuck"],
      "description": "stuck: paused, its resume is being retried"
    },
    "has_branched": {"type": "boolean"},
    "last_pause_us": {
      "type": ["integer", "null"], "minimum": 0, "description": "how long its latest branch kept it paused; null: none did"
    },
    "branch_count": {"type": "integer", "minimum": 0},
    "backing": {"type": "string", "description": "of its RAM; shared: can be branched live; file: not"},
    "memory_bytes": {"type": "integer", "minimum": 0},
    "vcpus": {"type": "integer", "minimum": 0},
    "netns": {
      "type": ["string", "null"],
      "description": "path of its network namespace, e.g. for nsenter --net=; null: none of its own"
    },
    "guest_addr": {"type": ["string", "null"], "description": "where the guest's agent listens in netns"},
    "memory_limit_mib": {"type": ["integer", "null"], "description": "null: none"}
  }
},
"branch": {
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "tag": {
      "anyOf": [{"$ref": "#/components/schemas/tag"}, {"type": "null"}],
      "description": "name of the snapshot; branch-ID-COUNT if it is absent"
    },
    "mode": {
      "enum": ["live", "full", "diff", null],
      "description": "live: memory is copied while the guest runs (default if possible); full, diff: in the pause"
    },
    "wait": {
      "type": ["boolean", "null"], "default": true,
      "description": "false: answer by 202 when the parent runs again"
    },
    "parent_tag": {
      "anyOf": [{"$ref": "#/components/schemas/tag"}, {"type": "null"}],
      "description": "the snapshot that the sandbox must come from, or the branch is refused; null: whichever it is"
    },
    "diff": {"type": ["boolean", "null"], "description": "older clients' way to say mode: diff if true, else full"},
    "measure_diff": {"enum": [false, null], "description": "forkd's second snapshot inside the pause is not taken: mode diff shows what one takes"}
  },
  "not": {
    "required": ["mode", "diff"],
    "properties": {"mode": {"type": "string"}, "diff": {"type": "boolean"}}
  }
},
"journal": {
  "type": "object",
  "required": ["steps", "gaps", "longest_stall_ns"],
  "properties": {
    "steps": {"type": "integer", "minimum": 0},
    "gaps": {"type": "integer", "minimum": 0, "description": "instants at which memory and registers disagreed"},
    "longest_stall_ns": {"type": "integer", "minimum": 0, "description": "between two steps, since the last reset"}
  }
},
"exec": {
  "type": "object",
  "additionalProperties": false,
  "required": ["args"],
  "properties": {
    "args": {"type": "array", "minItems": 1, "items": {"type": "string"}},
    "timeout_secs": {"type": ["integer", "null"], "minimum": 1, "maximum": 86400, "default": 30}
  }
},
"exec_result": {
  "type": "object",
  "required": ["stdout", "stderr", "exit_code"],
  "properties": {
    "stdout": {"type": "string"},
    "stderr": {"type": "string"},
    "exit_code": {"type": "integer"},
    "error": {"type": "string", "description": "why the agent did not run the program, or not to its end"}
  }
},
"eval_result": {
  "type": "object",
  "required": ["result", "error", "exit_code"],
  "properties": {
    "result": {"type": ["string", "null"]},
    "error": {"type": ["string", "null"]},
    "exit_code": {"type": "integer"}
  }
},
"agent": {"type": "object", "description": "what the agent says"},
"eval": {
  "type": "object",
  "additionalProperties": false,
  "required": ["code"],
  "properties": {"code": {"type": "string", "minLength": 1}}
},
"health": {
  "type": "object",
  "required": ["ok", "status"],
  "properties": {"ok": {"const": true}, "status": {"const": "ok"}}
},
"version": {
  "type": "object",
  "required": ["name", "version", "api", "vmm"],
  "properties": {
    "name": {"const": "coppiced"},
    "version": {"type": "string"},
    "api": {"const": "v1"},
    "vmm": {"$ref": "#/components/schemas/vmm"}
  }
},
"vmm": {
  "type": "object",
  "required": ["name", "version", "live", "missing_for_live"],
  "properties": {
    "name": {"type": "string"},
    "version": {"type": "string"},
    "live": {"type": "boolean", "description": "sandboxes can be branched live"},
    "missing_for_live": {"type": "array", "items": {"type": "string"}}
  }
},
"event_stream": {
  "description": "server-sent events: lines id, event (the data's type) and data; a line that begins with a colon is a comment",
  "type": "string",
  "contentMediaType": "text/event-stream",
  "contentSchema": {"oneOf": [
    {"$ref": "#/components/schemas/sandbox_event"},
    {"$ref": "#/components/schemas/branch_event"},
    {"$ref": "#/components/schemas/snapshot_event"},
    {"$ref": "#/components/schemas/reset_event"}
  ]}
},
"event_id": {"type": "integer", "minimum": 0, "description": "rises by one with each event; for Last-Event-ID"},
"sandbox_event": {
  "description": "data of an event of a sandbox; running: it has started, or is no longer stuck",
  "type": "object",
  "required": ["id", "type", "time_unix_ms", "sandbox", "tag"],
  "properties": {
    "id": {"$ref": "#/components/schemas/event_id"},
    "type": {"enum": ["sandbox.created", "sandbox.running", "sandbox.stuck", "sandbox.deleted", "sandbox.died"]},
    "time_unix_ms": {"type": "integer", "minimum": 0, "description": "when it happened"},
    "sandbox": {"type": "string", "description": "its id"},
    "tag": {"type": ["string", "null"], "description": "the snapshot that it was started from; null where it is stuck, or runs again"},
    "reason": {"type": "string", "description": "how its VMM died, or why it was not created"},
    "request_id": {"type": "string", "description": "of the request that began it, its X-Request-Id"}
  }
},
"branch_event": {
  "description": "data of an event of a branch; resumed: the parent runs again, the copy goes on",
  "type": "object",
  "required": ["id", "type", "time_unix_ms", "sandbox", "tag"],
  "properties": {
    "id": {"$ref": "#/components/schemas/event_id"},
    "type": {"enum": ["branch.started", "branch.resumed", "branch.ready", "branch.failed"]},
    "time_unix_ms": {"type": "integer", "minimum": 0, "description": "when it happened"},
    "sandbox": {"type": "string", "description": "id of the parent"},
    "tag": {"$ref": "#/components/schemas/tag", "description": "the snapshot that is made"},
    "reason": {"type": "string", "description": "why it failed, or who cancelled it"},
    "request_id": {"type": "string", "description": "of the request that began it, its X-Request-Id"}
  }
},
"snapshot_event": {
  "description": "data of an event of a snapshot; created and failed: of a booted kernel",
  "type": "object",
  "required": ["id", "type", "time_unix_ms", "sandbox", "tag"],
  "properties": {
    "id": {"$ref": "#/components/schemas/event_id"},
    "type": {"enum": ["snapshot.created", "snapshot.failed", "snapshot.deleted"]},
    "time_unix_ms": {"type": "integer", "minimum": 0, "description": "when it happened"},
    "sandbox": {"type": "null"},
    "tag": {"$ref": "#/components/schemas/tag"},
    "reason": {"type": "string", "description": "why it failed, or who cancelled it"},
    "request_id": {"type": "string", "description": "of the request that began it, its X-Request-Id"}
  }
},
"reset_event": {
  "description": "data of the event reset: what happened after the last event that you saw is no longer known",
  "type": "object",
  "required": ["reason"],
  "properties": {"reason": {"type": "string", "description": "what to do: list anew"}}
},
"text": {"type": "string"},
"openapi": {
  "type": "object",
  "required": ["openapi", "info", "paths", "components"],
  "properties": {
    "openapi": {"const": "3.1.0"},
    "info": {"type": "object"},
    "paths": {"type": "object"},
    "components": {"type": "object"}
  }
}
})json";

}  // namespace

const nlohmann::json& api_schemas() {
  static const auto schemas = nlohmann::json::parse(text);
  return schemas;
}

}  // namespace coppice

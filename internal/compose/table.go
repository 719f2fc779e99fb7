package compose

// verdict is what happens to a key that was written.
type verdict int

const (
	// mapped keys become part of a spec, exactly.
	mapped verdict = iota
	// accepted keys change nothing here, and the note says why that is right.
	accepted
	// refused keys are errors; the note says what to do instead.
	refused
	// absent paths are fields of the parser's types that no file can set.
	absent
)

// key is one row of the table. A path is dotted; * stands for any name and []
// for the items of a list. A row without rows below it speaks for its whole
// subtree.
type key struct {
	path    string
	verdict verdict
	note    string
}

const (
	byName     = "remove it: services reach each other by name, on all machines"
	byPodman   = "remove it: the container engine's own setting holds"
	cgroups    = "use cpus, mem_limit and pids_limit, or deploy.resources"
	useSecrets = "secrets do not exist here yet: use configs or environment until they do"
	useDevices = "name the device itself: devices: [\"nvidia.com/gpu=all\"]"
	noHooks    = "run it in the image's entrypoint"
	noBuild    = "nothing is built: a deploy warns, and says how to build and push the image"
)

// keys says for every key of the Compose specification what becomes of it.
var keys = []key{
	{"name", mapped, "name of the project; _ becomes -"},
	{"version", accepted, "obsolete in Compose itself"},
	{"include", mapped, ""},
	{"x-context", mapped, "the context that the file is meant for"},
	{"x-*", accepted, "a place for YAML anchors"},
	{"jobs.*", refused, "make it a service, or run it by hand"},
	{"models.*", refused, "run the model as a service"},
	{"secrets.*", refused, useSecrets},

	{"networks", mapped, "only `default`, without options: " + byName},
	{"volumes.*.name", mapped, "only with external: the name of the existing volume"},
	{"volumes.*.driver", mapped, ""},
	{"volumes.*.driver_opts", mapped, ""},
	{"volumes.*.external", mapped, "must exist; is never made or removed"},
	{"volumes.*.external.name", mapped, "the older way to write name"},
	{"volumes.*.labels", mapped, ""},
	{"volumes.*.x-shared", mapped, "true: several replicas may write to it at once; without it a service that writes to it has one replica"},

	{"configs.*.file", mapped, "read when the file is loaded; at most 1 MiB"},
	{"configs.*.content", mapped, ""},
	{"configs.*.environment", mapped, ""},
	{"configs.*.name", refused, "remove it: a config is part of the services that use it"},
	{"configs.*.external", refused, "give it a file or content"},
	{"configs.*.labels", refused, "remove them: a config is part of the services that use it"},
	{"configs.*.driver", refused, "give it a file or content"},
	{"configs.*.driver_opts", refused, "give it a file or content"},
	{"configs.*.template_driver", refused, "give it a file or content"},

	{"services.*.name", absent, ""},
	{"services.*.image", mapped, "without a registry it is on Docker Hub; one that begins with localhost/ is on no registry: only machines that it was pushed to run it"},
	{"services.*.pull_policy", mapped, "always, missing, if_not_present, never"},
	{"services.*.pull_refresh_after", refused, "use pull_policy: always"},
	{"services.*.build", accepted, noBuild},
	{"services.*.dockerfile", refused, "use build.dockerfile"},
	{"services.*.command", mapped, ""},
	{"services.*.entrypoint", mapped, ""},
	{"services.*.environment", mapped, ""},
	{"services.*.env_file", mapped, ""},
	{"services.*.env_file.[].path", mapped, ""},
	{"services.*.env_file.[].required", mapped, ""},
	{"services.*.env_file.[].format", mapped, "raw"},
	{"services.*.user", mapped, ""},
	{"services.*.working_dir", mapped, ""},
	{"services.*.hostname", mapped, ""},
	{"services.*.domainname", refused, "write the whole name as hostname"},
	{"services.*.init", mapped, ""},
	{"services.*.privileged", mapped, ""},
	{"services.*.read_only", mapped, ""},
	{"services.*.tty", mapped, ""},
	{"services.*.stdin_open", mapped, ""},
	{"services.*.cap_add", mapped, ""},
	{"services.*.cap_drop", mapped, ""},
	{"services.*.group_add", mapped, ""},
	{"services.*.sysctls", mapped, ""},
	{"services.*.ulimits", mapped, "a single value sets soft and hard"},
	{"services.*.ulimits.*.soft", mapped, ""},
	{"services.*.ulimits.*.hard", mapped, ""},
	{"services.*.ulimits.*.single", absent, ""},
	{"services.*.labels", mapped, "of the container"},
	{"services.*.label_file", mapped, ""},
	{"services.*.annotations", refused, "use labels"},
	{"services.*.extra_hosts", mapped, ""},
	{"services.*.stop_signal", mapped, ""},
	{"services.*.stop_grace_period", mapped, "default 10s"},
	{"services.*.shm_size", mapped, ""},
	{"services.*.security_opt", mapped, ""},
	{"services.*.tmpfs", mapped, "option size"},
	{"services.*.profiles", mapped, ""},
	{"services.*.extends", mapped, ""},
	{"services.*.scale", mapped, "as deploy.replicas"},
	{"services.*.restart", mapped, "always, unless-stopped: containers are always restarted"},
	{"services.*.expose", accepted, "every port is open to the services of the project"},
	{"services.*.attach", accepted, "concerns `docker compose up` only"},
	{"services.*.develop", accepted, "concerns `docker compose watch` only"},

	{"services.*.cpus", mapped, ""},
	{"services.*.mem_limit", mapped, ""},
	{"services.*.mem_reservation", mapped, ""},
	{"services.*.pids_limit", mapped, ""},
	{"services.*.memswap_limit", refused, cgroups},
	{"services.*.mem_swappiness", refused, cgroups},
	{"services.*.blkio_config", refused, cgroups},
	{"services.*.cpu_count", refused, cgroups},
	{"services.*.cpu_percent", refused, cgroups},
	{"services.*.cpu_period", refused, cgroups},
	{"services.*.cpu_quota", refused, cgroups},
	{"services.*.cpu_rt_period", refused, cgroups},
	{"services.*.cpu_rt_runtime", refused, cgroups},
	{"services.*.cpu_shares", refused, cgroups},
	{"services.*.cpuset", refused, cgroups},
	{"services.*.cgroup", refused, byPodman},
	{"services.*.cgroup_parent", refused, byPodman},
	{"services.*.oom_kill_disable", refused, cgroups},
	{"services.*.oom_score_adj", refused, cgroups},

	{"services.*.devices.[].source", mapped, "a path or a CDI name"},
	{"services.*.devices.[].target", mapped, ""},
	{"services.*.devices.[].permissions", mapped, ""},
	{"services.*.device_cgroup_rules", refused, "use devices"},
	{"services.*.gpus", refused, useDevices},

	{"services.*.volumes.[].type", mapped, "volume, bind, tmpfs"},
	{"services.*.volumes.[].source", mapped, "a named volume, or an absolute path; a relative path is refused: use configs"},
	{"services.*.volumes.[].target", mapped, ""},
	{"services.*.volumes.[].read_only", mapped, ""},
	{"services.*.volumes.[].consistency", accepted, "means nothing on Linux"},
	{"services.*.volumes.[].bind.create_host_path", mapped, "true only"},
	{"services.*.volumes.[].bind.selinux", accepted, "machines have no SELinux"},
	{"services.*.volumes.[].bind.propagation", refused, "remove it: mounts are private"},
	{"services.*.volumes.[].bind.recursive", refused, "remove it: mounts are recursive"},
	{"services.*.volumes.[].volume.labels", refused, "label the volume at the top level"},
	{"services.*.volumes.[].volume.nocopy", refused, "remove it"},
	{"services.*.volumes.[].volume.subpath", refused, "mount the whole volume"},
	{"services.*.volumes.[].tmpfs.size", mapped, ""},
	{"services.*.volumes.[].tmpfs.mode", refused, "remove it: a tmpfs has mode 1777"},
	{"services.*.volumes.[].image", refused, "copy the files into the service's image"},
	{"services.*.volume_driver", refused, "set driver at the top-level volume"},
	{"services.*.volumes_from", refused, "name the volumes"},
	{"services.*.storage_opt", refused, byPodman},

	{"services.*.configs.[].source", mapped, ""},
	{"services.*.configs.[].target", mapped, "default /<name>; refused where a mount of the service or of the engine would hide it"},
	{"services.*.configs.[].uid", mapped, "a number"},
	{"services.*.configs.[].gid", mapped, "a number"},
	{"services.*.configs.[].mode", mapped, "default 0444"},
	{"services.*.secrets", refused, useSecrets},
	{"services.*.credential_spec", refused, useSecrets},
	{"services.*.use_api_socket", refused, "remove it: containers cannot reach the engine"},

	{"services.*.healthcheck.test", mapped, "CMD, CMD-SHELL, NONE; each probe writes about 0.5 MB to the machine's disk, as every exec of Podman does: prefer x-healthcheck, which writes nothing"},
	{"services.*.healthcheck.interval", mapped, "default 30s"},
	{"services.*.healthcheck.timeout", mapped, "default 30s"},
	{"services.*.healthcheck.retries", mapped, "default 3"},
	{"services.*.healthcheck.start_period", mapped, ""},
	{"services.*.healthcheck.start_interval", mapped, "default 500ms"},
	{"services.*.healthcheck.disable", mapped, ""},
	{"services.*.x-healthcheck.http", mapped, "\":8080/path\"; timings from healthcheck"},
	{"services.*.x-healthcheck.tcp", mapped, "\":5432\""},

	{"services.*.ports.[].target", mapped, ""},
	{"services.*.ports.[].published", mapped, "a port of the machine that runs the replica; must be given"},
	{"services.*.ports.[].host_ip", mapped, "an IPv4 address: ports of the machine answer on IPv4 only"},
	{"services.*.ports.[].protocol", mapped, "tcp, udp; x-ports for http and https"},
	{"services.*.ports.[].mode", accepted, "host and ingress mean the same outside Swarm: a port of the machine"},
	{"services.*.ports.[].name", accepted, "documentation"},
	{"services.*.ports.[].app_protocol", accepted, "documentation"},
	{"services.*.x-ports", mapped, "list of [hostname:][published:]port[/http|https] or [ip:]published:port[/tcp|udp]@host, which answers on IPv4 only; https names that no public authority certifies are signed by the machine that answers: uc machine ca MACHINE"},
	{"services.*.x-caddy", mapped, "a Caddyfile fragment, a path to one, or {config: either}"},

	{"services.*.depends_on.*.condition", mapped, "service_started, service_healthy: a rollout waits for health in any case"},
	{"services.*.depends_on.*.required", mapped, ""},
	{"services.*.depends_on.*.restart", refused, "remove it: containers find each other by name after a restart"},

	{"services.*.deploy.mode", mapped, "replicated, global"},
	{"services.*.deploy.replicas", mapped, "default 1"},
	{"services.*.deploy.labels", refused, "use the service's labels"},
	{"services.*.deploy.endpoint_mode", refused, "remove it"},
	{"services.*.deploy.rollback_config", refused, "remove it: a return goes as update_config says"},
	{"services.*.deploy.update_config.order", mapped, "default start-first, or stop-first where a port or volume asks for it"},
	{"services.*.deploy.update_config.parallelism", mapped, "default 1"},
	{"services.*.deploy.update_config.delay", mapped, ""},
	{"services.*.deploy.update_config.monitor", mapped, "default 5s, without a health check"},
	{"services.*.deploy.update_config.failure_action", mapped, "rollback, which is also the default"},
	{"services.*.deploy.update_config.max_failure_ratio", refused, "remove it: the first failure returns the service"},
	{"services.*.deploy.resources.limits.cpus", mapped, ""},
	{"services.*.deploy.resources.limits.memory", mapped, ""},
	{"services.*.deploy.resources.limits.pids", mapped, ""},
	{"services.*.deploy.resources.limits.devices", absent, ""},
	{"services.*.deploy.resources.limits.generic_resources", absent, ""},
	{"services.*.deploy.resources.reservations.memory", mapped, ""},
	{"services.*.deploy.resources.reservations.cpus", refused, "use deploy.resources.limits.cpus"},
	{"services.*.deploy.resources.reservations.pids", absent, ""},
	{"services.*.deploy.resources.reservations.devices", refused, useDevices},
	{"services.*.deploy.resources.reservations.generic_resources", refused, "use placement constraints on machine labels"},
	{"services.*.deploy.restart_policy.condition", mapped, "any"},
	{"services.*.deploy.restart_policy.delay", refused, "remove it: the delay grows by itself"},
	{"services.*.deploy.restart_policy.max_attempts", refused, "remove it: containers are always restarted"},
	{"services.*.deploy.restart_policy.window", refused, "remove it: containers are always restarted"},
	{"services.*.deploy.placement.constraints", mapped, "machine.labels.K==V, machine.name==N; also node.labels, node.hostname; != for labels"},
	{"services.*.deploy.placement.preferences", refused, "remove them: replicas spread over machines by themselves"},
	{"services.*.deploy.placement.max_replicas_per_node", refused, "use deploy.mode: global for one replica a machine"},
	{"services.*.x-machines", mapped, "names or ids: a list, or one string with commas"},
	{"services.*.x-failover", mapped, "true: replicas of a dead machine are made again on the living"},
	{"services.*.x-pre_deploy", refused, noHooks},

	{"services.*.container_name", refused, "remove it: a service may have many containers, reached by the service's name"},
	{"services.*.networks", mapped, "only `default`, without options: " + byName},
	{"services.*.network_mode", refused, byName},
	{"services.*.net", refused, byName},
	{"services.*.links", refused, byName},
	{"services.*.external_links", refused, byName},
	{"services.*.mac_address", refused, "remove it"},
	{"services.*.dns", refused, "remove it: the machine answers names and forwards the rest"},
	{"services.*.dns_opt", refused, "remove it: the machine answers names and forwards the rest"},
	{"services.*.dns_search", refused, "remove it: the machine answers names and forwards the rest"},
	{"services.*.ipc", refused, "remove it: use shm_size for more shared memory"},
	{"services.*.pid", refused, "remove it: each container has its own processes"},
	{"services.*.uts", refused, "remove it"},
	{"services.*.userns_mode", refused, byPodman},
	{"services.*.isolation", refused, byPodman},
	{"services.*.runtime", refused, byPodman},
	{"services.*.platform", refused, "limit the service to machines: x-machines or placement constraints"},
	{"services.*.umask", refused, noHooks},
	{"services.*.logging", refused, "remove it: uc logs shows what containers write"},
	{"services.*.log_driver", refused, "remove it: uc logs shows what containers write"},
	{"services.*.log_opt", refused, "remove it: uc logs shows what containers write"},
	{"services.*.pre_start", refused, noHooks},
	{"services.*.post_start", refused, noHooks},
	{"services.*.pre_stop", refused, "handle the stop signal in the program"},
	{"services.*.provider", refused, "run it as a service"},
	{"services.*.models", refused, "run the model as a service"},
}

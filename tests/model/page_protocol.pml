/* The page protocol of copy_engine/ (docs/copy-engine.md), for spin. check_model.py runs it, CMakeLists.txt says how often.
 *
 * Who does what, each a process here as it is a thread there:
 *   guest         any number of vCPUs: any page that is not protected may be written at any moment while the VM isn't paused
 *   fault_thread  faults, all decisions on protection, the re-arm, giving up. Its tasks are one step each: nobody else sees
 *                 what they change, but for what they post. Serving a fault is one step a capture, a push and a lifted page
 *   protector     the helper: arms and lifts what the fault thread hands it, one slice at a time, one step a page, while
 *                 faults are served; pre-arm, its repeated rounds and the lifting behind the copies are made of such slices
 *   copier        the copy thread's work for one branch: claim, write, settle; saving ahead; captures; the end of the job
 *   coordinator   a branch: pre-arm, pause, re-arm, resume, copy, abort; the abort, or a missed deadline, after any step
 * No lock is held anywhere: what threads share are the page states (compare and exchange), the stack of captures and the
 * task queues.
 *
 * What is checked (the assertions' names, and that no process is stuck):
 *   image_is_of_the_instant  a copy that has succeeded holds what each page held when its VM was paused
 *   is_settled_once          no page counts twice for the copy's end
 *   protection_is_gone       after the lifting, once no branch is left
 *   INVARIANT (-D)           a page that the guest writes needs no capture; off when bugs are put in, which shall show by
 *                            their images
 *   BOUNDED (-D)             with WRITES writes of the guest, BUFFERS bounce buffers, vCPUs that wait and messages that
 *                            they make: nobody_is_forgotten (a vCPU waits only while its message can be read or is deferred),
 *                            there_is_a_buffer (acquire()'s REQUIRES), is_at_rest (at the end: all branches over, nothing
 *                            protected, nobody waiting, all buffers back). With check_model.py --ends also that each run ends
 *
 * What is left out, and why nothing is missed by it:
 *   - Contents are one bit: what the page held at the branch's instant, or not. A page that has been written to stays
 *     "not" for ever, so any number of writes costs no states. Branches follow each other without end, too (but for ONCE).
 *   - A message is not remembered: the fault thread may be told of any page at any time. So a message may be late by any
 *     time, be of a page that was lifted or armed again since, come twice, or be deferred for as long as one likes. (BOUNDED
 *     remembers them, and that they may be read after the page was lifted.)
 *   - Reads of RAM (a bulk write, a look at a zero page or hole, the copy into a bounce buffer) happen at their last possible moment:
 *     at the completion, or with the change of the state. What is wrong earlier is still wrong then.
 *   - Writes are of one page; a longer one completes later than its pages were written, which is a delay. A window or a block
 *     is all of RAM. All else may come in any order and be delayed: posted tasks, completions, pages of the stream.
 *   - What is saved ahead is queued, then written: both are the delay of its completion. What is still queued when the job ends is
 *     dropped: here it completes later, without effect, as what is in flight does. Its memory is not counted: it is never waited
 *     for, and a fault that finds too little left is deferred as by any other shortage.
 *   - One thread copies all branches of a VM; here each has its own, which allows more.
 *   - Epochs may be given up at any time, for any page that they need (BOUNDED: only for a deferred one).
 *   - CALM (-D) leaves out failures (the kernel's, the disk's, giving up, missed deadlines), aborts, zero pages and holes (which are
 *     a bulk write that completes soon), where two branches with two pages each would be too many states.
 *   - The order of memory accesses is that of the program: page states are acq_rel, all else is on one thread, or handed over by a
 *     queue. The kernel changes one page's protection at once. One VM. Digests, limits, partial writes and a VM that is detached are not here.
 *
 * Bugs that the tests put in (-D BUG); each must show as the named assertion, else image_is_of_the_instant:
 *   ARM_BEFORE_PAUSE         the epoch begins before the pause
 *   NO_REARM                 touched pages are not protected again
 *   LIFT_BEFORE_COPY         the fault thread lifts the protection, then saves the page
 *   NO_OVERWRITE_ORDER       a captured page is written without waiting for the bulk write in flight
 *   CAPTURE_SKIPS_IN_FLIGHT  a fault on a page in flight just lifts it
 *   LIFT_PREARMED            a page that one epoch has saved is lifted, though another is pre-armed and believes it to be untouched
 *   LIFT_NEIGHBOUR_IN_FLIGHT a neighbour that is in flight is lifted, too
 *   FAULT_AROUND_SAVES_ONE   the window is lifted, but only the page of the fault is saved
 *   CLEARED_AFTER_ARMING     a repeated pre-arm round forgets touched pages once it has armed them, not before
 *   LATE_MESSAGE_LIFTS       whether a page may be lifted is decided when its message is read, and done later
 *   TWO_THREADS_LIFT         what the fault thread has served is lifted by another thread, sometime
 *   LIFTING_DOES_NOT_LOOK    slices are lifted in their order, whether or not their pages are saved for each epoch
 *   LIFTING_IS_NOT_REPEATED  what a new epoch has armed again counts as lifted already (protection_is_gone)
 *   SUCCESS_IS_NOT_ASKED     a job whose pages are all settled succeeds, though its epoch has been given up just before
 *   SAVED_IS_WRITTEN_ANYWAY  the saved copy of a page that was captured while it was being saved ahead is written as well
 *   SETTLED_BEFORE_SAVED     a page is settled, then saved ahead
 *   DEFERRED_IS_FORGOTTEN    a fault that finds no bounce buffer is not deferred (nobody_is_forgotten)
 *   ABORT_KEEPS_BUFFERS      a write that completes after the job's end does not give its buffer back (is_at_rest)
 */
#ifndef PAGES
#define PAGES 2
#endif
#ifndef BRANCHES
#define BRANCHES 1
#endif

/* ---- words -------------------------------------------------------------------------------------------------------
 * Sets of pages have bit p for page p. What is only to be done for each page or branch is written once, and put
 * as one option each into a loop. */

#define page_set(name) unsigned name : PAGES
#define ALL ((1 << PAGES) - 1)
#define BIT(p) (1 << (p))
#define NOBODY 255

#if PAGES == 1
#define FOR_EACH_PAGE(option) :: option(0)
#define FOR_EACH_PAGE_OF(k, option) :: option(k, 0)
#elif PAGES == 2
#define FOR_EACH_PAGE(option) :: option(0) :: option(1)
#define FOR_EACH_PAGE_OF(k, option) :: option(k, 0) :: option(k, 1)
#else
#define FOR_EACH_PAGE(option) :: option(0) :: option(1) :: option(2)
#define FOR_EACH_PAGE_OF(k, option) :: option(k, 0) :: option(k, 1) :: option(k, 2)
#endif
#if BRANCHES == 1
#define FOR_EACH_BRANCH(option) :: option(0)
#define IN_EACH_BRANCH(condition, p) (condition(0, p))
#define IN_A_BRANCH(condition) (condition(0))
#elif BRANCHES == 2
#define FOR_EACH_BRANCH(option) :: option(0) :: option(1)
#define IN_EACH_BRANCH(condition, p) (condition(0, p) && condition(1, p))
#define IN_A_BRANCH(condition) (condition(0) || condition(1))
#else
#define FOR_EACH_BRANCH(option) :: option(0) :: option(1) :: option(2)
#define IN_EACH_BRANCH(condition, p) (condition(0, p) && condition(1, p) && condition(2, p))
#define IN_A_BRANCH(condition) (condition(0) || condition(1) || condition(2))
#endif

mtype = { no_request, ask_prearm, ask_rearm, ask_copy, ask_abort };  /* of the session, a task of the fault thread */
mtype = { idle, prearming, prearmed, begun, failed, closed };        /* epoch_phase; begun: `active` in the code */
mtype = { armed, in_flight, captured, captured_in_flight, done };    /* page_state */
mtype = { no_job, copying, closing, draining };                     /* job_stage */
mtype = { no_slice, under_way, ended };

typedef epoch {
  mtype request = ask_prearm;
  /* fault thread only */
  mtype phase = idle;
  page_set(is_touched); page_set(touched); page_set(retouch);
  byte prearmed_pages;
  bool close_waits, end_waits;  /* the job's end, abort(): for the lifting */
  /* shared: fault thread and copy thread */
  mtype state[PAGES] = armed;
  page_set(captures);           /* the stack */
  /* tasks posted */
  bool fail_posted, end_posted, close_posted;
  /* copy thread only */
  mtype stage = no_job;
  bool failure, ends;
  page_set(bulk);               /* writes in flight of what the stream has claimed */
  page_set(overwrites);         /* captures that wait for one of these */
  page_set(saving);             /* writes in flight of captures */
  page_set(ahead);              /* saved ahead, not yet written: queued or in flight */
  page_set(settled);
  bool succeeded, over;         /* the answers to copy and abort */
#ifdef SUCCESS_IS_NOT_ASKED
  bool looked;                  /* at the tasks, since the last completion */
#endif
  /* contents: true where they are what the page held at the branch's instant */
  bool has_instant;
#ifdef BOUNDED
  bool went_again;              /* most_prearm_rounds: without it a pre-arm may last for ever */
#endif
  page_set(ram) = ALL; page_set(buffer) = ALL; page_set(image) = ALL
};
epoch e[BRANCHES];

#define add(set, p) set = (set) | BIT(p)
#define drop(set, p) set = (set) & ~BIT(p)
#define put(set, p, value) set = ((set) & ~BIT(p)) | ((value) << (p))
#define has(set, p) (((set) >> (p)) & 1)

page_set(protected);
bool paused;
#ifdef BOUNDED
page_set(waiting);        /* pages at whose fault a vCPU stands still */
page_set(messages);       /* that can be read from the uffd */
page_set(deferred);       /* deferred_faults */
byte buffers = BUFFERS;   /* free in the bounce pool */
byte writes;
inline give_buffer() { buffers++ }
inline take_buffer() { there_is_a_buffer = buffers > 0; assert(there_is_a_buffer); there_is_a_buffer = false; buffers-- }
#else
inline give_buffer() { skip }
inline take_buffer() { skip }
#endif
byte branches_over;
bool there_is_a_buffer, nobody_is_forgotten, protection_is_gone, is_settled_once, image_is_of_the_instant, is_at_rest;

#define needs_capture(k, p) (e[k].state[p] == armed || e[k].state[p] == in_flight)

inline lift(p) {
  drop(protected, p);
#ifdef BOUNDED
  drop(waiting, p)
#endif
}

/* ---- the guest --------------------------------------------------------------------------------------------------- */

#ifdef SAVED_IS_WRITTEN_ANYWAY
#define is_to_be_read(k, p) (needs_capture(k, p) || has(e[k].bulk, p) || e[k].state[p] == captured_in_flight)
#else
#define is_to_be_read(k, p) (needs_capture(k, p) || has(e[k].bulk, p))
#endif

inline wrote(k, p) {
  if
  :: e[k].has_instant && is_to_be_read(k, p) ->
#ifdef INVARIANT
     assert(e[k].phase != begun || !needs_capture(k, p));
#endif
     drop(e[k].ram, p)
  :: !e[k].has_instant && e[k].state[p] != armed -> drop(e[k].buffer, p); drop(e[k].image, p)
  :: else
  fi
}

inline write_page(p) {
  d_step {
#ifdef BOUNDED
    !paused && !has(protected, p) && writes < WRITES -> writes++;
#else
    !paused && !has(protected, p) ->
#endif
    wrote(0, p);
#if BRANCHES > 1
    wrote(1, p);
#endif
#if BRANCHES > 2
    wrote(2, p)
#endif
  }
}

#ifdef BOUNDED
inline fault(p) {
  d_step { !paused && has(protected, p) && !has(waiting, p) && writes < WRITES -> add(waiting, p); add(messages, p) }
}
#endif

proctype guest() {
end:
  do
  FOR_EACH_PAGE(write_page)
#ifdef BOUNDED
  FOR_EACH_PAGE(fault)
#endif
  od
}

/* ---- the helper --------------------------------------------------------------------------------------------------- */

mtype slice = no_slice;
bool slice_protects;
page_set(slice_pages);    /* still to be done */
byte slice_offset;        /* of a lifting's */
byte slice_of = NOBODY;   /* the branch whose pre-arm it belongs to */

inline change_protection(p) {
  atomic {
    slice == under_way && has(slice_pages, p) && !(slice_pages & (BIT(p) - 1)) ->
    if :: slice_protects -> add(protected, p) :: else -> lift(p) fi;
    drop(slice_pages, p);
    if :: !slice_pages -> slice = ended :: else fi
  }
}

proctype protector() {
end:
  do
  FOR_EACH_PAGE(change_protection)
  od
}

/* ---- the fault thread: faults ------------------------------------------------------------------------------------ */

#define is_in_epochs(k) (e[k].phase != idle && e[k].phase != closed)
#ifndef LIFT_PREARMED
#define is_saved_for(k, p) \
  (!is_in_epochs(k) || e[k].phase == failed || (e[k].phase == begun && !needs_capture(k, p)))
#else
#define is_saved_for(k, p) (e[k].phase != begun || !needs_capture(k, p))
#endif
#define is_saved(p) IN_EACH_BRANCH(is_saved_for, p)

#ifdef LIFT_NEIGHBOUR_IN_FLIGHT
#define is_neighbour_saved_for(k, p) (is_saved_for(k, p) || (e[k].phase == begun && e[k].state[p] == in_flight))
#else
#define is_neighbour_saved_for(k, p) is_saved_for(k, p)
#endif
#define is_neighbour_saved(p) IN_EACH_BRANCH(is_neighbour_saved_for, p)

/* Whether serving the page would change anything. */
#define has_effect(p) (protected || !is_saved(p))

/* Goes to the next page that must be captured for an epoch, from page q of epoch k on; marks touched ones meanwhile. */
inline next_capture() {
  do
  :: k == BRANCHES -> break
  :: k < BRANCHES && has(served, q) && e[k].phase == begun && needs_capture(k, q) -> break
  :: else ->
     if
     :: has(served, q) && (e[k].phase == prearming || e[k].phase == prearmed) && !has(e[k].is_touched, q) ->
        add(e[k].is_touched, q); add(e[k].touched, q)
     :: else
     fi;
     next_page()
  od
}
inline next_page() {
  if :: q < PAGES - 1 -> q++ :: else -> q = 0; k++ fi
}

/* What is served with page f: the saved ones around it, to be lifted only, or a window, to be captured first. */
inline begin_serving(f, window) {
  served = BIT(f);
  q = f;
  if
  :: is_saved(f) ->
     do :: q > 0 && is_neighbour_saved(q - 1) -> q--; add(served, q) :: else -> break od;
     q = f;
     do :: q < PAGES - 1 && is_neighbour_saved(q + 1) -> q++; add(served, q) :: else -> break od;
     q = 0; k = BRANCHES
  :: else ->
#ifdef FAULT_AROUND_SAVES_ONE
     around = served;
     do :: q - f < window - 1 && q < PAGES - 1 -> q++; add(around, q) :: break od;
#else
     do :: q - f < window - 1 && q < PAGES - 1 -> q++; add(served, q) :: break od;
#endif
     q = 0; k = 0;
#ifdef LIFT_BEFORE_COPY
     protected = protected & ~served;
#endif
     begin_captures(f)
  fi
}

#ifndef BOUNDED
inline begin_captures(f) { next_capture() }

/* A message may say anything at any time. */
inline read_message(f) {
  atomic { has_effect(f) -> begin_serving(f, PAGES); goto serving }
}
#else
#define needs_buffer(k, p) (e[k].phase == begun && needs_capture(k, p))
#if BRANCHES == 1
#define needed_for(p) needs_buffer(0, p)
#else
#define needed_for(p) (needs_buffer(0, p) + needs_buffer(1, p))
#endif
#if PAGES == 1
#define needed needed_for(0)
#else
#define needed (has(served, 0) * needed_for(0) + has(served, 1) * needed_for(1))
#endif

inline begin_captures(f) {
  if :: needed > buffers -> served = BIT(f) :: else fi;
  if
  :: needed > buffers ->
#ifndef DEFERRED_IS_FORGOTTEN
     add(deferred, f);
#endif
     served = 0; k = 0
  :: else -> next_capture()
  fi
}

inline check_waiting() {
  nobody_is_forgotten = !(waiting & ~(messages | deferred));
  assert(nobody_is_forgotten);
  nobody_is_forgotten = false
}

inline read_message(f) {
  atomic {
    has(messages, f) -> drop(messages, f);
    begin_serving(f, PAGES);
    if :: served -> goto serving :: else -> q = 0; check_waiting() fi
  }
}

inline retry_deferred(f) {
  atomic { has(deferred, f) && (is_saved(f) || needed_for(f) <= buffers) ->
    drop(deferred, f);
    begin_serving(f, 1);
    goto serving
  }
}
#endif

inline lift_page() {
#ifdef TWO_THREADS_LIFT
  add(lifts_due, q)
#else
  lift(q)
#endif
}

/* ---- the fault thread: tasks. Nobody else sees what they change, but for what they post ---------------------------- */

bool lifting;         /* lift_offset is set, and this: */
byte lifted_pages;

inline end_waits_of(c) {
  if :: e[c].close_waits -> e[c].close_waits = false; e[c].stage = draining :: else fi;
  if :: e[c].end_waits -> e[c].end_waits = false; e[c].end_posted = true :: else fi
}
#define needs_all(k) (e[k].phase == prearming || e[k].phase == prearmed)

inline end_lifting() {
  lifting = false; lifted_pages = 0;
  end_waits_of(0);
#if BRANCHES > 1
  end_waits_of(1);
#endif
#if BRANCHES > 2
  end_waits_of(2)
#endif
}

inline all_lifted() {
  if
  :: lifted_pages == PAGES && !IN_A_BRANCH(is_in_epochs) ->
     protection_is_gone = !protected;
     assert(protection_is_gone);
     protection_is_gone = false;
     end_lifting()
  :: else
  fi
}

/* closes: for the job, which has ended; else for abort(). */
inline close_epoch(c, closes) {
  if
  :: e[c].phase == closed -> if :: closes -> e[c].stage = draining :: else -> e[c].end_posted = true fi
  :: else ->
     e[c].phase = closed;
     e[c].is_touched = 0; e[c].touched = 0; e[c].retouch = 0; e[c].prearmed_pages = 0;
     if :: !IN_A_BRANCH(needs_all) -> lifting = true :: else fi;
     if
     :: IN_A_BRANCH(is_in_epochs) -> if :: closes -> e[c].stage = draining :: else -> e[c].end_posted = true fi
     :: else ->
        if :: closes -> e[c].close_waits = true :: else -> e[c].end_waits = true fi;
        all_lifted()
     fi
  fi
}

inline run_request(c) {
  atomic {
    e[c].request != no_request ->
    if
    :: e[c].request == ask_prearm ->
       e[c].phase = prearming;
#ifndef LIFTING_IS_NOT_REPEATED
       end_lifting()
#endif
    :: e[c].request == ask_rearm ->
       if
       :: e[c].phase == prearmed ->
#ifndef NO_REARM
          protected = protected | e[c].touched;
#endif
          e[c].touched = 0; e[c].is_touched = 0;
          e[c].phase = begun;
          lifting = true
#ifndef CALM
       :: e[c].phase = failed   /* the kernel refuses */
#endif
       fi
    :: e[c].request == ask_copy ->
       if :: e[c].phase == begun -> e[c].stage = copying :: else fi
    :: e[c].request == ask_abort -> close_epoch(c, false)
    fi;
    e[c].request = no_request
  }
}

inline close_job(c) {
  atomic {
    e[c].close_posted ->
    e[c].close_posted = false;
#ifndef SUCCESS_IS_NOT_ASKED
    if :: e[c].phase != begun -> e[c].failure = true :: else fi;
#endif
    close_epoch(c, true)
  }
}

inline begin_lifting_slice() {
  atomic {
#ifdef LIFTING_DOES_NOT_LOOK
    slice == no_slice && lifting && lifted_pages < PAGES ->
#else
    slice == no_slice && lifting && lifted_pages < PAGES && is_saved(lifted_pages) ->
#endif
    slice = under_way; slice_pages = BIT(lifted_pages); slice_offset = lifted_pages
  }
}

inline begin_prearm_slice(c) {
  atomic {
    slice == no_slice && e[c].phase == prearming ->
    slice = under_way; slice_protects = true; slice_of = c;
    if
    :: e[c].prearmed_pages < PAGES -> slice_pages = BIT(e[c].prearmed_pages)
    :: else ->
       slice_pages = e[c].retouch;
       do   /* all of them, or some */
       :: (slice_pages & (slice_pages - 1)) -> slice_pages = slice_pages & (slice_pages - 1)
       :: (slice_pages & (slice_pages - 1)) -> slice_pages = slice_pages & ~(slice_pages & (slice_pages - 1))
       :: break
       od;
       e[c].retouch = e[c].retouch & ~slice_pages;
#ifndef CLEARED_AFTER_ARMING
       e[c].is_touched = e[c].is_touched & ~slice_pages
#else
       cleared = slice_pages
#endif
    fi
  }
}

inline end_round(c) {
  if
#ifdef BOUNDED
  :: e[c].touched && !e[c].went_again -> e[c].went_again = true; e[c].retouch = e[c].touched; e[c].touched = 0
#else
  :: e[c].touched -> e[c].retouch = e[c].touched; e[c].touched = 0
#endif
  :: e[c].phase = prearmed; e[c].prearmed_pages = 0
  fi
}

inline end_slice_of(c) {
  if
  :: slice_of == c && e[c].phase == prearming ->
#ifdef CLEARED_AFTER_ARMING
     e[c].is_touched = e[c].is_touched & ~cleared; cleared = 0;
#endif
     if
     :: e[c].prearmed_pages < PAGES ->
        e[c].prearmed_pages++;
        if :: e[c].prearmed_pages == PAGES -> end_round(c) :: else fi
     :: e[c].prearmed_pages == PAGES -> if :: !e[c].retouch -> end_round(c) :: else fi
#ifndef CALM
     :: e[c].phase = failed; e[c].prearmed_pages = 0; e[c].retouch = 0   /* the kernel refuses */
#endif
     fi
  :: else
  fi
}

inline end_slice() {
  atomic {
    slice == ended ->
    slice = no_slice;
    if
    :: slice_protects ->
       end_slice_of(0);
#if BRANCHES > 1
       end_slice_of(1);
#endif
#if BRANCHES > 2
       end_slice_of(2)
#endif
    :: !slice_protects && lifting && lifted_pages == slice_offset ->
       lifted_pages++;
       all_lifted()
    :: else
    fi;
    slice_protects = false; slice_offset = 0; slice_of = NOBODY
  }
}

inline give_up_for(c, p) {
  if
  :: e[c].phase == begun && needs_capture(c, p) -> e[c].phase = failed; e[c].fail_posted = true
  :: else
  fi
}
#define can_do_without(k, p) (e[k].phase != begun || !needs_capture(k, p))
inline give_up(p) {
  atomic {
#ifdef BOUNDED
    has(deferred, p) && !IN_EACH_BRANCH(can_do_without, p) ->
#else
    !IN_EACH_BRANCH(can_do_without, p) ->
#endif
    give_up_for(0, p);
#if BRANCHES > 1
    give_up_for(1, p);
#endif
#if BRANCHES > 2
    give_up_for(2, p)
#endif
  }
}

/* Bugs with a late message: what is to be lifted has been decided before other tasks ran. */
#if defined(LATE_MESSAGE_LIFTS) || defined(TWO_THREADS_LIFT)
page_set(lifts_due);
inline late_lift(p) { atomic { has(lifts_due, p) -> drop(lifts_due, p); lift(p) } }
inline late_decision(p) { atomic { is_saved(p) && has(protected, p) -> add(lifts_due, p) } }
#endif
#ifdef TWO_THREADS_LIFT
proctype second_lifter() {
end:
  do
  FOR_EACH_PAGE(late_lift)
  od
}
#endif

proctype fault_thread() {
  byte k, q;
  page_set(served);
#ifdef FAULT_AROUND_SAVES_ONE
  page_set(around);
#endif
#ifdef CLEARED_AFTER_ARMING
  page_set(cleared);
#endif
end:
  do
  FOR_EACH_PAGE(read_message)
#ifdef BOUNDED
  FOR_EACH_PAGE(retry_deferred)
#endif
#ifdef LATE_MESSAGE_LIFTS
  FOR_EACH_PAGE(late_decision)
  FOR_EACH_PAGE(late_lift)
#endif
#ifndef CALM
  FOR_EACH_PAGE(give_up)
#endif
  FOR_EACH_BRANCH(run_request)
  FOR_EACH_BRANCH(close_job)
  :: end_slice()
  :: begin_lifting_slice()
  FOR_EACH_BRANCH(begin_prearm_slice)
  od;
serving:
  do
  :: k < BRANCHES ->
     if
     :: atomic { needs_capture(k, q) ->
          take_buffer();
          put(e[k].buffer, q, has(e[k].ram, q));
#ifdef CAPTURE_SKIPS_IN_FLIGHT
          if
          :: e[k].state[q] == armed -> e[k].state[q] = captured
          :: else -> next_page(); next_capture(); goto serving
          fi
#else
          e[k].state[q] = (e[k].state[q] == armed -> captured : captured_in_flight)
#endif
        }
        atomic { add(e[k].captures, q); next_page(); next_capture() }
     :: atomic { !needs_capture(k, q) -> next_page(); next_capture() }
     fi
  :: atomic { k == BRANCHES ->
#ifdef FAULT_AROUND_SAVES_ONE
       served = served | around; around = 0;
#endif
       do :: !has(served, q) -> q++ :: else -> break od;
       lift_page();
       drop(served, q); q = 0;
       if
       :: served
       :: !served -> k = 0;
#ifdef BOUNDED
          check_waiting();
#endif
          goto end
       fi }
  od
}

/* ---- the copy thread, the job of one branch ------------------------------------------------------------------------ */

#ifdef SUCCESS_IS_NOT_ASKED
#define works(k) (e[k].stage == copying && !e[k].failure && e[k].looked)
inline looks_again(k) { e[k].looked = false }
#else
#define works(k) (e[k].stage == copying && !e[k].failure)
inline looks_again(k) { skip }
#endif

inline settle_page(k, p) {
  is_settled_once = !has(e[k].settled, p);
  assert(is_settled_once);
  is_settled_once = false;
  add(e[k].settled, p)
}

/* Read at the last moment: what has become too new stays so. */
inline read_and_mark(k, p) {
  e[k].state[p] = done;
  put(e[k].image, p, has(e[k].ram, p));
  add(e[k].ram, p)   /* not read any more */
}
inline settle(k, p) {
  read_and_mark(k, p);
  settle_page(k, p)
}

inline run_tasks(k) {
  atomic {
    e[k].fail_posted || e[k].end_posted ->
    if
    :: e[k].fail_posted -> e[k].fail_posted = false; if :: e[k].stage == copying -> e[k].failure = true :: else fi
    :: else
    fi;
    if
    :: e[k].end_posted && e[k].stage == no_job -> e[k].end_posted = false; release_captures(k); e[k].over = true
    :: e[k].end_posted && e[k].stage != no_job ->
       e[k].end_posted = false; e[k].ends = true;
       if :: e[k].stage == copying -> e[k].failure = true; e[k].stage = draining :: else fi
    :: else
    fi
  }
}

inline release_captures(k) {
  release(k, 0);
#if PAGES > 1
  release(k, 1);
#endif
#if PAGES > 2
  release(k, 2)
#endif
}
inline release(k, p) {
  if :: has(e[k].captures, p) -> drop(e[k].captures, p); give_buffer() :: else fi
}

inline drain(k, p) {
  if
  :: !has(e[k].captures, p)
  :: has(e[k].captures, p) ->
     drop(e[k].captures, p);
     if
#ifdef NO_OVERWRITE_ORDER
     :: true -> add(e[k].saving, p)
#else
     :: has(e[k].bulk, p) -> add(e[k].overwrites, p)
     :: !has(e[k].bulk, p) -> add(e[k].saving, p)
#endif
     :: e[k].state[p] == captured -> put(e[k].image, p, has(e[k].buffer, p)); give_buffer(); settle_page(k, p)  /* zero */
     fi
  fi
}
inline drain_captures(k) {
  drain(k, 0);
#if PAGES > 1
  drain(k, 1);
#endif
#if PAGES > 2
  drain(k, 2)
#endif
}

/* Claimed, and the write submitted. */
inline stream(k, p) {
  atomic { works(k) && e[k].state[p] == armed -> e[k].state[p] = in_flight; add(e[k].bulk, p) }
}

/* A zero page: claimed, looked at and settled. */
inline stream_zero(k, p) {
  atomic { works(k) && e[k].state[p] == armed -> e[k].state[p] = in_flight }
  atomic { if :: e[k].state[p] == in_flight -> settle(k, p) :: else fi }
}

/* Saved ahead: claimed, copied into memory of the copy thread's own, and settled at once, so that it needs no protection any
 * more. It counts for the copy's end when that copy has been written. Nobody else writes a page of the image that is `done`: it is
 * neither captured nor claimed any more. So what will be written is put there now. If the page was captured meanwhile, the
 * copy is void, and there is no write for the capture to wait for. */
inline save_ahead(k, p) {
  atomic { works(k) && e[k].state[p] == armed -> e[k].state[p] = in_flight }
#ifdef SETTLED_BEFORE_SAVED
  atomic { if :: e[k].state[p] == in_flight -> e[k].state[p] = done; add(e[k].bulk, p) :: else fi }   /* yet to be read */
  atomic { if :: has(e[k].bulk, p) -> drop(e[k].bulk, p); read_and_mark(k, p); add(e[k].ahead, p) :: else fi }
#else
  atomic {
    if
    :: e[k].state[p] == in_flight -> read_and_mark(k, p); add(e[k].ahead, p)
#ifdef SAVED_IS_WRITTEN_ANYWAY
    :: e[k].state[p] != in_flight && !has(e[k].ram, p) -> add(e[k].ahead, p)   /* too new, else it does no harm */
#endif
    :: else
    fi
  }
#endif
}

inline skip_hole(k, p) {
  atomic { works(k) && e[k].state[p] == armed -> settle(k, p) }
}

inline complete_bulk(k, p) {
  atomic {
    has(e[k].bulk, p) ->
    drop(e[k].bulk, p);
    looks_again(k);
    if
    :: e[k].stage == copying ->
       if
       :: e[k].state[p] == in_flight -> settle(k, p)
       :: else -> put(e[k].image, p, has(e[k].ram, p))
       fi;
       if :: has(e[k].overwrites, p) -> drop(e[k].overwrites, p); add(e[k].saving, p) :: else fi
#ifdef CALM
    :: e[k].stage != copying ->
#else
    :: true ->   /* it failed, or the job has ended: what waits for it is not written */
#endif
       if :: e[k].stage == copying -> e[k].failure = true :: else fi;
       if :: has(e[k].overwrites, p) -> drop(e[k].overwrites, p); give_buffer() :: else fi
    fi;
    add(e[k].ram, p)
  }
}

inline complete_saving(k, p) {
  atomic {
    has(e[k].saving, p) ->
    drop(e[k].saving, p);
    looks_again(k);
    if
    :: e[k].stage == copying -> put(e[k].image, p, has(e[k].buffer, p)); give_buffer(); settle_page(k, p)
#ifdef CALM
    :: e[k].stage != copying ->
#else
    :: true ->
#endif
       if :: e[k].stage == copying -> e[k].failure = true :: else fi;
#ifndef ABORT_KEEPS_BUFFERS
       give_buffer()
#endif
    fi
  }
}

/* Or, once the job ends: a queued one is dropped. */
inline complete_ahead(k, p) {
  atomic {
    has(e[k].ahead, p) ->
    drop(e[k].ahead, p);
    looks_again(k);
    if
#ifdef SAVED_IS_WRITTEN_ANYWAY
    :: e[k].state[p] != done -> drop(e[k].image, p)
    :: e[k].stage == copying && e[k].state[p] == done -> settle_page(k, p)
#else
    :: e[k].stage == copying -> settle_page(k, p)
#endif
#ifdef CALM
    :: e[k].stage != copying
#else
    :: true -> if :: e[k].stage == copying -> e[k].failure = true :: else fi
#endif
    fi
  }
}

proctype copier(byte k) {
end:
  do
  :: run_tasks(k)
#ifdef SUCCESS_IS_NOT_ASKED
  :: atomic { e[k].stage != no_job && !e[k].looked && !e[k].fail_posted && !e[k].end_posted -> e[k].looked = true }
#endif
  :: atomic { works(k) && e[k].captures -> drain_captures(k) }
  FOR_EACH_PAGE_OF(k, stream)
#ifndef CALM
  FOR_EACH_PAGE_OF(k, stream_zero)
  FOR_EACH_PAGE_OF(k, skip_hole)
#endif
  FOR_EACH_PAGE_OF(k, complete_bulk)
  FOR_EACH_PAGE_OF(k, complete_saving)
  FOR_EACH_PAGE_OF(k, save_ahead)
  FOR_EACH_PAGE_OF(k, complete_ahead)
  /* close_finished_jobs */
#ifdef SUCCESS_IS_NOT_ASKED
  :: atomic { e[k].looked && e[k].stage == copying && (e[k].failure || e[k].settled == ALL) ->
#else
  :: atomic { e[k].stage == copying && (e[k].failure || e[k].settled == ALL) ->
#endif
       e[k].stage = closing; e[k].close_posted = true }
  :: atomic { e[k].stage == draining && !e[k].bulk && !e[k].saving && !e[k].ahead ->
       release_captures(k);
       e[k].succeeded = !e[k].failure;
       e[k].stage = no_job; e[k].failure = false;
       e[k].settled = 0;
       e[k].over = e[k].ends; e[k].ends = false }
  od
}

/* ---- the branch_coordinator ---------------------------------------------------------------------------------------- */

inline reset(k) {
  e[k].over = false; e[k].succeeded = false; e[k].phase = idle; e[k].has_instant = false;
  e[k].ram = ALL; e[k].buffer = ALL; e[k].image = ALL;
  e[k].state[0] = armed;
#if PAGES > 1
  e[k].state[1] = armed;
#endif
#if PAGES > 2
  e[k].state[2] = armed;
#endif
  if :: slice_of == k -> slice_of = NOBODY :: else fi
}

#define answered(k) (e[k].request == no_request)

proctype coordinator(byte k) {
end:
  do
  :: /* the pre-arm is asked for */
     if
#ifndef ARM_BEFORE_PAUSE
     :: atomic { answered(k) && e[k].phase == prearmed && !paused ->
          paused = true; e[k].has_instant = true; e[k].request = ask_rearm }
        if
        :: atomic { answered(k) && (e[k].phase == begun || e[k].phase == failed) -> paused = false; e[k].request = ask_copy }
#ifndef CALM
        :: paused = false;   /* a deadline is missed: the re-arm may still come */
           atomic { answered(k) -> e[k].request = ask_abort; goto undo }
#endif
        fi;
#else
     :: atomic { answered(k) && e[k].phase == prearmed -> e[k].request = ask_rearm }
        atomic { answered(k) && e[k].phase == begun && !paused -> paused = true; e[k].has_instant = true }
        atomic { paused = false; e[k].request = ask_copy }
#endif
        if
        :: atomic { answered(k) && e[k].succeeded ->
             image_is_of_the_instant = (e[k].image == ALL);
             assert(image_is_of_the_instant);
             image_is_of_the_instant = false;
             e[k].request = ask_abort }
#ifndef CALM
        :: atomic { answered(k) -> e[k].request = ask_abort }
#endif
        fi
#ifndef CALM
     :: atomic { answered(k) -> e[k].request = ask_abort }
#endif
     fi;
undo:
     atomic { e[k].over -> reset(k);
#if defined(BOUNDED) || defined(ONCE)
       branches_over++; break
#else
       e[k].request = ask_prearm
#endif
     }
  od
}

init {
  atomic {
    run guest(); run protector(); run fault_thread();
#ifdef TWO_THREADS_LIFT
    run second_lifter();
#endif
    run copier(0); run coordinator(0);
#if BRANCHES > 1
    run copier(1); run coordinator(1);
#endif
#if BRANCHES > 2
    run copier(2); run coordinator(2)
#endif
  }
#ifdef BOUNDED
  timeout;
  is_at_rest = branches_over == BRANCHES && !protected && !waiting && !messages && !deferred && buffers == BUFFERS;
  assert(is_at_rest)
#endif
}
